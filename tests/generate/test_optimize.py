"""Optimizing noise: exact gradients, rewards that rise, and clips that don't depend on their company."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from plaudit import loading
from plaudit.errors import ModelError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.optimize import Optimizer, frozen, optimize_noise
from plaudit.generate.sampling import differentiable_latents, initial_noise, sample_latents
from plaudit.generate.settings import SOLVERS, Guidance, NoiseOptimization, SamplingSettings, Solver
from tests.generate.tiny import HashedText, tiny_music

SETTINGS = SamplingSettings(steps=4, guidance=Guidance(weight=2.0), score=1.0, precision="no")


class Quiet:
    """Likes a waveform the more, the closer it is to silence."""

    def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
        return -waves.square().mean(1)


def optimizer(**changes: float) -> Optimizer:
    return Optimizer("quiet", Quiet(), NoiseOptimization.model_validate({"learning_rate": 0.02, **changes}))


@pytest.mark.parametrize("solver", SOLVERS)
def test_latents_and_gradients_are_those_of_the_plain_sampler(solver: Solver) -> None:
    model = tiny_music().backbone
    text, negative = HashedText().encode(["a", "b"]), HashedText().encode(["no"])
    settings, scores = SETTINGS.changed(solver=solver, steps=3), torch.tensor([0.5, 2.0])
    noise = initial_noise([1, 2], 6, 5).requires_grad_()
    with frozen(model):
        output = differentiable_latents(model, text, negative, scores, noise, settings)
        output.square().sum().backward()
        assert all(parameter.grad is None for parameter in model.parameters())
    expected = sample_latents(model, text, negative, scores, noise.detach(), settings)
    torch.testing.assert_close(output.detach(), expected)
    assert noise.grad is not None and all(parameter.requires_grad for parameter in model.parameters())
    direction = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
    ahead, behind = (
        sample_latents(model, text, negative, scores, noise.detach() + step * direction, settings).square().sum()
        for step in (1e-2, -1e-2)
    )
    assert (noise.grad * direction).sum().item() == pytest.approx(((ahead - behind) / 2e-2).item(), rel=2e-2)


def test_the_reward_rises_from_that_of_the_plain_clip() -> None:
    music = tiny_music()
    plain = music.generate(["a", "b"], [3, 4], SETTINGS)
    result = optimize_noise(music, ["a", "b"], [3, 4], SETTINGS, optimizer(iterations=8))
    torch.testing.assert_close(result.rewards[0], Quiet().score_tensors(plain, 50, ["a", "b"]))
    assert result.rewards.shape == (9, 2) and (result.rewards[-1] > result.rewards[0]).all()
    torch.testing.assert_close(Quiet().score_tensors(result.waves, 50, []), result.rewards.max(0).values)


def test_a_clip_does_not_depend_on_its_company() -> None:
    music = tiny_music()
    together = optimize_noise(music, ["a", "b"], [3, 4], SETTINGS, optimizer(iterations=2))
    alone = optimize_noise(music, ["b"], [4], SETTINGS, optimizer(iterations=2))
    torch.testing.assert_close(alone.waves[0], together.waves[1], atol=1e-4, rtol=1e-4)


def test_the_noise_keeps_its_norm_if_configured() -> None:
    music = tiny_music()
    kept, free = (
        optimize_noise(music, ["a"], [3], SETTINGS, optimizer(iterations=6, learning_rate=0.3, keep_norm=keep))
        for keep in (True, False)
    )
    assert torch.equal(kept.rewards[:1], free.rewards[:1]) and not torch.equal(kept.rewards[-1], free.rewards[-1])


def test_a_reward_without_gradient_is_an_error() -> None:
    class Deaf:
        def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
            return (0 * waves).sum(1) / 0

    deaf = Optimizer("deaf", Deaf(), NoiseOptimization())
    with pytest.raises(ModelError, match="no usable gradient in the noise"):
        optimize_noise(tiny_music(), ["a"], [0], SETTINGS, deaf)


def test_one_clip_without_a_gradient_stays_and_the_others_go_on() -> None:
    class Partly(Quiet):
        def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
            plain = super().score_tensors(waves, rate, prompts)
            broken = [index for index, prompt in enumerate(prompts) if prompt == "b"]
            return plain.index_add(0, torch.tensor(broken), (0 * waves[broken].sum(1)).sqrt())

    partly = Optimizer("partly", Partly(), NoiseOptimization(iterations=3, learning_rate=0.02))
    result = optimize_noise(tiny_music(), ["a", "b"], [3, 4], SETTINGS, partly)
    assert (result.rewards[1:, 0] > result.rewards[0, 0]).any()
    torch.testing.assert_close(result.rewards[:, 1], result.rewards[:1, 1].expand(4))


def test_optimized_clips_say_so_and_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    music, requests = tiny_music(), [ClipRequest("one", "a", 3)]
    generate_clips(music, requests, SETTINGS, tmp_path)
    plain = (tmp_path / "one.wav").read_bytes()
    generate_clips(music, requests, SETTINGS, tmp_path, optimizer=optimizer(iterations=2))
    recorded = json.loads((tmp_path / "one.json").read_text())
    assert recorded["optimization"] == {"reward": "quiet", "iterations": 2, "learning_rate": 0.02, "keep_norm": True}
    assert len(recorded["measured"]["rewards"]) == 3 and (tmp_path / "one.wav").read_bytes() != plain


def test_the_shipped_reward_has_a_true_gradient_through_codec_and_sampler() -> None:
    """Only close by: its statistics and its codec's phases make the landscape rough."""
    music, reward = loading.load("synthetic", "cpu"), loading.load_reward("synthetic")
    settings = music.config.sampling.changed(steps=2, precision="no")
    prompts = ["slow sad piano"]
    text, negative = music.text_encoder.encode(prompts), music.text_encoder.encode([settings.negative_prompt])

    def value(latents: Tensor) -> Tensor:
        return reward.score_tensors(music.codec.decode(latents), music.codec.sample_rate, prompts).sum()

    noise = initial_noise([0], 30, music.codec.latent_dim).requires_grad_()
    with frozen(music.backbone):
        latents = differentiable_latents(music.backbone, text, negative, torch.tensor([1.0]), noise, settings)
        (through_all,) = torch.autograd.grad(value(latents), noise)
    assert torch.isfinite(through_all).all() and through_all.abs().max() > 0
    here = latents.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(here), here)
    step = 1e-4 * here.norm() * gradient / gradient.norm()
    with torch.no_grad():
        change = (value(here + step) - value(here - step)) / 2
    assert change.item() == pytest.approx((gradient * step).sum().item(), rel=0.5)

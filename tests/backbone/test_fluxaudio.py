from __future__ import annotations

import pytest
import torch

from plaudit.backbone import PRESETS, FluxAudio, initialize
from plaudit.types import TextFeatures
from tests.backbone.tiny import inputs, tiny_model, wake


def test_an_untrained_model_predicts_zero_velocity() -> None:
    latents, text, t = inputs()
    assert not tiny_model()(latents, text, t).any()


def test_equal_seeds_give_equal_weights_whatever_the_global_generator_and_the_injection() -> None:
    torch.manual_seed(1)
    first = tiny_model("film", seed=5).state_dict()
    torch.manual_seed(2)
    second = tiny_model("none", seed=5).state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())
    other = tiny_model("none", seed=6).state_dict()
    assert not torch.equal(second["text_in.0.weight"], other["text_in.0.weight"])


def test_linear_weights_start_xavier_uniform() -> None:
    weight = tiny_model().state_dict()["joint_blocks.0.audio.qkv.weight"]
    bound = (6 / (32 + 96)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_each_sample_is_its_own() -> None:
    model = wake(tiny_model())
    latents, text, t = inputs(3)
    with torch.no_grad():
        together = model(latents, text, t)
        alone = model(latents[1:2], text.rows(torch.tensor([1])), t[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_text_time_and_pooled_text_matter() -> None:
    model = wake(tiny_model())
    latents, text, t = inputs(2)
    with torch.no_grad():
        base = model(latents, text, t)
        for changed in (
            model(latents, TextFeatures(text.tokens.flip(1), text.pooled), t),
            model(latents, TextFeatures(text.tokens, -text.pooled), t),
            model(latents, text, 1 - t),
            model(latents.flip(1), text, t).flip(1),
        ):
            assert (changed - base).abs().max() > 1e-4


@pytest.mark.parametrize("frames", [1, 2, 40])
def test_any_length_works(frames: int) -> None:
    latents, text, t = inputs(2, frames)
    assert wake(tiny_model())(latents, text, t).shape == (2, frames, 5)


def test_standardizing_gives_the_training_set_unit_statistics_and_back() -> None:
    model = tiny_model()
    data = torch.randn(50, 20, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6) + 3
    empty = TextFeatures(torch.full((1, 7, 12), 2.0), torch.full((1, 10), 3.0))
    flat = data.flatten(0, 1)
    model.set_statistics(flat.mean(0), flat.std(0), score_mean=0.5, score_std=2.0, empty=empty)
    standard = model.standardize(data)
    torch.testing.assert_close(standard.flatten(0, 1).std(0), torch.ones(5))
    torch.testing.assert_close(model.unstandardize(standard), data)
    given_back = model.empty_text(4)
    assert given_back.tokens.shape == (4, 7, 12) and given_back.pooled.shape == (4, 10)
    assert (given_back.tokens == 2).all() and (given_back.pooled == 3).all()


def test_statistics_travel_with_the_weights() -> None:
    model = tiny_model("input_add")
    model.score_mean.fill_(1.25)
    other = tiny_model("input_add", seed=9)
    other.load_state_dict(model.state_dict())
    assert other.score_mean == 1.25


def test_the_synthetic_preset_learns_one_batch() -> None:
    """A few updates of the real synthetic size in bfloat16 lower the loss on their batch."""
    torch.manual_seed(0)
    model = FluxAudio(PRESETS["synthetic"])
    initialize(model, 0)
    text = TextFeatures(torch.randn(2, 32, 128), torch.randn(2, 128))
    latents, target, t = torch.randn(2, 12, 40), torch.randn(2, 12, 40), torch.tensor([0.3, 0.7])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(latents, text, t).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]

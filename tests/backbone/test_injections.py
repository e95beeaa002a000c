from __future__ import annotations

import pytest
import torch

from plaudit.backbone import INJECTIONS, FluxAudio, cross_load
from plaudit.backbone.injections import fourier_features
from plaudit.errors import ModelError
from tests.backbone.tiny import inputs, tiny_config, tiny_model, wake

SCORED = [name for name in INJECTIONS.builtin if name != "none"]


def trained_a_little(injection: str, steps: int = 10) -> FluxAudio:
    """A model that has learned to answer its score: the target is the score itself."""
    model = wake(tiny_model(injection))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    latents, text, t = inputs(8)
    score = torch.linspace(-2, 2, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(latents, text, t, score) - score[:, None, None]).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("injection", SCORED)
def test_at_initialization_any_score_leaves_the_model_unconditioned(injection: str, autocast: bool) -> None:
    plain, conditioned = wake(tiny_model()), wake(tiny_model(injection))
    latents, text, t = inputs(4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = plain(latents, text, t)
        assert expected.abs().max() > 0.01
        scores = torch.tensor([-3.0, 0.0, 5.0, torch.nan])
        assert torch.equal(conditioned(latents, text, t, scores), expected)
        assert torch.equal(conditioned(latents, text, t), expected)


@pytest.mark.parametrize("injection", SCORED)
def test_every_injection_learns_to_follow_the_score(injection: str) -> None:
    model = trained_a_little(injection)
    latents, text, t = inputs(1)
    with torch.no_grad():
        low, high, null = (model(latents, text, t, torch.tensor([s])) for s in (-2.0, 2.0, torch.nan))
    assert (low - high).abs().max() > 1e-3
    assert (low - null).abs().max() > 1e-3


@pytest.mark.parametrize("injection", SCORED)
def test_every_parameter_takes_part_in_training(injection: str) -> None:
    model = wake(tiny_model(injection))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("score.") and not parameter.any():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    latents, text, t = inputs(4)
    model(latents, text, t, torch.tensor([-1.0, 0.3, 1.0, torch.nan])).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The last text stream is pre-only: what its queries see is never read, so nothing else of it can be idle.
    assert not [name for name in idle if ".text.query_norm" not in name], idle


@pytest.mark.parametrize("injection", SCORED)
def test_a_dropped_score_is_the_same_as_none_and_does_not_touch_the_rest_of_the_batch(injection: str) -> None:
    model = trained_a_little(injection)
    latents, text, t = inputs(2)
    with torch.no_grad():
        mixed = model(latents, text, t, torch.tensor([1.0, torch.nan]))
        torch.testing.assert_close(mixed[1], model(latents, text, t)[1])
        torch.testing.assert_close(mixed[0], model(latents, text, t, torch.tensor([1.0, 1.0]))[0])


def test_scores_are_taken_relative_to_the_training_set() -> None:
    model = trained_a_little("global_adaln")
    latents, text, t = inputs(1)
    with torch.no_grad():
        before = model(latents, text, t, torch.tensor([1.5]))
        model.score_mean.fill_(10.0)
        model.score_std.fill_(2.0)
        torch.testing.assert_close(model(latents, text, t, torch.tensor([13.0])), before)


def test_a_score_given_to_a_model_without_one_is_refused() -> None:
    latents, text, t = inputs(2)
    with pytest.raises(ModelError, match="takes no score"):
        tiny_model()(latents, text, t, torch.zeros(2))


@pytest.mark.parametrize("target", INJECTIONS.builtin)
@pytest.mark.parametrize("source", INJECTIONS.builtin)
def test_cross_loading_shares_the_backbone_and_the_embedder(source: str, target: str) -> None:
    state = wake(tiny_model(source, seed=3)).state_dict()
    model, report = cross_load(state, tiny_config(target))
    loaded = model.state_dict()
    assert sorted(loaded.keys() - state.keys()) == report.new
    assert sorted(state.keys() - loaded.keys()) == report.unused
    assert all(torch.equal(loaded[name], state[name]) for name in loaded.keys() & state.keys())
    if "none" not in (source, target):
        assert not [name for name in report.new + report.unused if name.startswith("score.embedder")]


@pytest.mark.parametrize("target", INJECTIONS.builtin)
@pytest.mark.parametrize("source", INJECTIONS.builtin)
def test_at_initialization_cross_loading_is_the_same_function(source: str, target: str) -> None:
    model = wake(tiny_model(source, seed=3))
    loaded, _ = cross_load(model.state_dict(), tiny_config(target))
    latents, text, t = inputs(4)
    scores = torch.tensor([-3.0, 0.0, 5.0, torch.nan])
    with torch.no_grad():
        expected = model(latents, text, t)
        assert expected.abs().max() > 0.01
        assert torch.equal(loaded(latents, text, t), expected)
        if target != "none":
            assert torch.equal(loaded(latents, text, t, scores), expected)


@pytest.mark.parametrize("target", ["score_token", "cross_attention", "film"])
def test_what_cross_loading_adds_does_nothing_until_trained(target: str) -> None:
    trained = trained_a_little("input_add")
    plain, _ = cross_load(trained.state_dict(), tiny_config())
    model, _ = cross_load(trained.state_dict(), tiny_config(target))
    latents, text, t = inputs(2)
    with torch.no_grad():
        assert torch.equal(model(latents, text, t, torch.tensor([1.0, 2.0])), plain(latents, text, t))


def test_cross_loading_between_the_published_injections_uses_every_weight() -> None:
    trained = trained_a_little("global_adaln")
    model, report = cross_load(trained.state_dict(), tiny_config("input_add"))
    assert report.new == report.unused == []
    latents, text, t = inputs(2)
    with torch.no_grad():
        low, high = (model(latents, text, t, torch.full((2,), s)) for s in (-2.0, 2.0))
    assert (low - high).abs().max() > 1e-4


def test_cross_loading_another_size_is_refused() -> None:
    state = tiny_model("global_adaln").state_dict()
    state["final.out.bias"] = torch.zeros(9)
    with pytest.raises(ModelError, match=r"final\.out\.bias"):
        cross_load(state, tiny_config("input_add"))


def test_fourier_features_tell_scores_apart_and_move_slowly() -> None:
    scores = torch.linspace(-4, 8, 121)
    features = fourier_features(scores, 64)
    assert features.shape == (121, 64)
    apart = torch.cdist(features, features)
    assert apart[~torch.eye(121, dtype=torch.bool)].min() > 0.1
    assert (features[1:] - features[:-1]).norm(dim=1).max() < 1.0

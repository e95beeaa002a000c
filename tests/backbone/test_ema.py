from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.backbone.ema import PostHocEMA, Snapshot, ema_exponent, reconstruct
from plaudit.errors import ModelError


class Scalar(nn.Module):
    """One parameter and a buffer that no average may touch."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(3))
        self.register_buffer("fixed", torch.tensor(7.0))


def path_of_weights(step: int) -> torch.Tensor:
    """A training path with a trend, a wave and a settling part."""
    return torch.tensor([step / 300, np.sin(step / 40), np.exp(-step / 50)], dtype=torch.float32)


def train(ema: PostHocEMA, model: Scalar, first: int, last: int) -> None:
    for step in range(first, last + 1):
        with torch.no_grad():
            model.value.copy_(path_of_weights(step))
        ema.update(step)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.25])
def test_the_profile_has_the_relative_length_that_it_is_named_by(sigma_rel: float) -> None:
    gamma = ema_exponent(sigma_rel)
    s = (np.arange(200_000) + 0.5) / 200_000
    weight = s**gamma / (s**gamma).sum()
    mean = (weight * s).sum()
    assert np.sqrt((weight * (s - mean) ** 2).sum()) == pytest.approx(sigma_rel, rel=1e-3)


def test_the_exponent_of_a_published_length() -> None:
    assert ema_exponent(0.10) == pytest.approx(6.94, abs=0.01)
    assert ema_exponent(0.05) == pytest.approx(16.97, abs=0.01)


@pytest.mark.parametrize("sigma_rel", [0.0, 0.3, -1.0])
def test_impossible_lengths_are_refused(sigma_rel: float) -> None:
    with pytest.raises(ModelError, match="sigma_rel"):
        ema_exponent(sigma_rel)


def test_a_running_average_is_the_weighted_mean_of_all_weights() -> None:
    model = Scalar()
    ema = PostHocEMA(model)
    train(ema, model, 1, 200)
    gamma = ema_exponent(0.05)
    steps = np.arange(1, 201)
    # The weights of the recurrence: each step's fraction times what all later steps keep of it.
    keep = (1 - 1 / steps) ** (gamma + 1)
    shares = (1 - keep) * np.append(np.cumprod(keep[:0:-1])[::-1], 1.0)
    expected = sum(float(share) * path_of_weights(int(step)) for share, step in zip(shares, steps, strict=True))
    torch.testing.assert_close(ema.weights(0.05)["value"], expected, atol=1e-5, rtol=0)


def test_constant_weights_stay_what_they_are() -> None:
    model = Scalar()
    ema = PostHocEMA(model)
    with torch.no_grad():
        model.value.fill_(2.5)
    for step in range(1, 20):
        ema.update(step)
    torch.testing.assert_close(ema.weights(0.1)["value"], torch.full((3,), 2.5))


def test_copy_to_replaces_parameters_and_leaves_buffers() -> None:
    model = Scalar()
    ema = PostHocEMA(model)
    train(ema, model, 1, 10)
    ema.copy_to(model)
    assert torch.equal(model.value.detach(), ema.weights(0.05)["value"])
    assert model.fixed == 7


def test_a_resumed_average_equals_one_never_stopped() -> None:
    model, other = Scalar(), Scalar()
    whole, first = PostHocEMA(model), PostHocEMA(other)
    train(whole, model, 1, 60)
    train(first, other, 1, 25)
    second = PostHocEMA(other)
    second.load_state_dict(first.state_dict())
    train(second, other, 26, 60)
    for sigma_rel in (0.05, 0.10):
        assert torch.equal(whole.weights(sigma_rel)["value"], second.weights(sigma_rel)["value"])


def test_a_state_of_other_lengths_or_names_is_refused() -> None:
    ema = PostHocEMA(Scalar())
    with pytest.raises(ValueError):
        ema.load_state_dict(PostHocEMA(Scalar(), (0.1,)).state_dict())
    with pytest.raises(ValueError):
        ema.load_state_dict(PostHocEMA(nn.Linear(2, 2)).state_dict())


@pytest.mark.parametrize("sigma_rel, step", [(0.07, None), (0.15, None), (0.05, None), (0.08, 300)])
def test_reconstruction_matches_an_average_kept_all_along(sigma_rel: float, step: int | None) -> None:
    model = Scalar()
    kept, direct = PostHocEMA(model), PostHocEMA(model, (sigma_rel,))
    snapshots = []
    for number in range(1, 401):
        with torch.no_grad():
            model.value.copy_(path_of_weights(number))
        kept.update(number)
        if number <= (step or 400):
            direct.update(number)
        if number % 25 == 0:
            snapshots += kept.snapshots()
    output = reconstruct(snapshots, sigma_rel, step)["value"]
    torch.testing.assert_close(output, direct.weights(sigma_rel)["value"], atol=5e-3, rtol=0)


def test_reconstruction_needs_snapshots_that_reach_far_enough() -> None:
    with pytest.raises(ModelError, match="no EMA snapshots"):
        reconstruct([], 0.05)
    with pytest.raises(ModelError, match="outside"):
        reconstruct([Snapshot(10, 0.05, {"value": torch.zeros(3)})], 0.05, 11)


def test_a_length_that_is_not_kept_is_refused() -> None:
    with pytest.raises(ModelError, match="reconstruct"):
        PostHocEMA(Scalar()).weights(0.07)


def test_snapshots_survive_being_written(tmp_path: Path) -> None:
    snapshot = Snapshot(12, 0.05, {"value": torch.arange(3.0)})
    snapshot.save(tmp_path / "ema.safetensors")
    read = Snapshot.load(tmp_path / "ema.safetensors")
    assert (read.step, read.sigma_rel) == (12, 0.05)
    assert torch.equal(read.weights["value"], snapshot.weights["value"])

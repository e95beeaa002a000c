from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.flow import flow_loss, interpolate, logit_normal_time, velocity


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    data, noise = torch.randn(2, 4, 3, 2, generator=generator, dtype=torch.float64)
    return data, noise


def test_the_path_runs_from_data_to_noise() -> None:
    data, noise = pair()
    assert torch.equal(interpolate(data, noise, torch.zeros(4)), data)
    assert torch.equal(interpolate(data, noise, torch.ones(4)), noise)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_velocity_is_the_slope_between_any_two_points_of_the_path(a: float, b: float) -> None:
    data, noise = pair()
    ta, tb = (torch.full((4,), t, dtype=torch.float64) for t in (a, b))
    difference = interpolate(data, noise, tb) - interpolate(data, noise, ta)
    torch.testing.assert_close(difference, (b - a) * velocity(data, noise))


def test_each_sample_has_its_own_time() -> None:
    data, noise = pair()
    mixed = interpolate(data, noise, torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=torch.float64))
    assert torch.equal(mixed[0], data[0]) and torch.equal(mixed[1], noise[1])
    torch.testing.assert_close(mixed[2], 0.75 * data[2] + 0.25 * noise[2])


def test_training_times_are_the_sigmoid_of_standard_normals() -> None:
    times = logit_normal_time(20_000, torch.Generator().manual_seed(0))
    assert 0 < times.min() and times.max() < 1
    logits = times.logit()
    assert abs(logits.mean()) < 0.03 and abs(logits.std() - 1) < 0.02
    assert torch.equal(times, logit_normal_time(20_000, torch.Generator().manual_seed(0)))


def test_the_loss_is_a_mean_square_per_sample_in_float32() -> None:
    predicted = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]], dtype=torch.bfloat16)
    target = torch.tensor([[[0.0, 1.0]], [[0.0, 2.0]]])
    loss = flow_loss(predicted, target)
    assert loss.dtype == torch.float32 and loss.tolist() == [2.5, 2.0]


def test_the_best_constant_prediction_of_the_velocity_is_its_mean() -> None:
    """At the optimum the loss left is the velocity's variance: E|noise - data|^2 about E[noise - data]."""
    data, noise = pair()
    target = velocity(data, noise)
    best = flow_loss(target.mean(0, keepdim=True).expand_as(target), target).mean()
    assert best < flow_loss(torch.zeros_like(target), target).mean()
    torch.testing.assert_close(best.double(), target.var(0, unbiased=False).mean(), atol=1e-6, rtol=0)

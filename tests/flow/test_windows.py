"""Windows over one long state: their weights, and that what is local in the velocity stays as it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import RecipeError
from plaudit.flow import integrate, plan_windows, windowed
from plaudit.generate.settings import SOLVERS, Solver

SIZES = {"total": st.integers(1, 300), "length": st.integers(2, 60), "share": st.floats(0.02, 0.9)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(loop=st.booleans(), **SIZES)
@settings(deadline=None)
def test_weights_sum_to_one_everywhere(total: int, length: int, share: float, loop: bool) -> None:
    windows = plan_windows(total, length, max(1, int(share * length)), loop)
    assert windows.length == min(length, total) and bool((windows.weights > 0).all())
    over = torch.zeros(total).index_add(0, windows.index.flatten(), windows.weights.flatten())
    torch.testing.assert_close(over, torch.ones(total), atol=1e-6, rtol=0)
    x = noise(2, total, 3)
    torch.testing.assert_close(windows.join(windows.cut(x)), x, atol=1e-5, rtol=0)


@given(loop=st.booleans(), **SIZES)
@settings(deadline=None)
def test_neighbours_overlap_by_at_least_the_requested_frames(total: int, length: int, share: float, loop: bool) -> None:
    overlap = max(1, int(share * length))
    windows = plan_windows(total, length, overlap, loop)
    overlap = min(overlap, windows.length - 1)
    starts = windows.index[:, 0].tolist()
    following = [*starts[1:], starts[0] + total] if loop else starts[1:]
    least = min(overlap, windows.length // 2) if loop else overlap
    for start, after in zip(starts, following, strict=False):
        # Even spacing rounds starts to whole frames.
        assert start + windows.length - after >= least - 1
    if not loop:
        assert starts[0] == 0 and starts[-1] + windows.length == total


def test_weights_change_slowly_from_frame_to_frame() -> None:
    """No window takes over at once: with half of 40 frames shared, no weight moves by more than a squared sine does."""
    for loop in (False, True):
        windows = plan_windows(200, 40, 20, loop)
        assert windows.weights.diff(dim=1).abs().max() < 1.1 * torch.pi / 2 / 20


def test_a_short_piece_is_one_window_and_a_short_loop_two() -> None:
    assert len(plan_windows(30, 40, 20)) == 1
    loop = plan_windows(30, 40, 20, loop=True)
    assert loop.index[:, 0].tolist() == [0, 15] and loop.length == 30


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_velocity_without_neighbours_is_untouched(solver: Solver, loop: bool) -> None:
    """Where each frame's flow is independent, windows change nothing, whatever the weights."""
    windows, start = plan_windows(57, 16, 6, loop), noise(2, 57, 3)
    output = integrate(windowed(lambda x, t, step: -2 * t * x + t, windows), start, 7, solver)
    expected = integrate(lambda x, t, step: -2 * t * x + t, start, 7, solver)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_what_windows_share_is_pulled_to_the_weighted_mean_of_what_they_want() -> None:
    """Each window flows to another target, v = (x - target) / t: the piece ends at the blended targets."""
    windows = plan_windows(20, 12, 4)
    targets = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 12, 1)
    output = integrate(windowed(lambda x, t, step: (x - targets) / t, windows), noise(1, 20, 1), 10)
    torch.testing.assert_close(output, windows.join(targets), atol=1e-5, rtol=0)
    assert bool((output[0, :8] == 1).all() | torch.isclose(output[0, :8], torch.ones(8, 1)).all())
    assert bool((output[0, 8:12].diff(dim=0) < 0).all())


def test_a_loop_does_not_know_where_it_begins() -> None:
    """For a velocity that depends on neighbours, turning the start turns the result, by a window's distance."""

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        return x - torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]

    windows, start = plan_windows(48, 16, 8, loop=True), noise(1, 48, 2)
    output = integrate(windowed(velocity, windows), start, 5)
    turned = integrate(windowed(velocity, windows), start.roll(8, 1), 5)
    torch.testing.assert_close(turned, output.roll(8, 1), atol=1e-6, rtol=0)


def test_windows_in_groups_are_the_windows_at_once() -> None:
    windows, x, seen = plan_windows(57, 16, 6), noise(2, 57, 3), []

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        seen.append(len(x))
        return t * x - x.flip(1)

    whole = windowed(velocity, windows)(x, 0.5, 0)
    assert torch.equal(windowed(velocity, windows, 2)(x, 0.5, 0), whole)
    assert len(windows) == 6 and seen == [12, 4, 4, 4]


@pytest.mark.parametrize("overlap", [0, 16, 20])
def test_windows_that_share_nothing_or_all_are_refused(overlap: int) -> None:
    with pytest.raises(RecipeError, match="windows of 16 frames must overlap by 1 to 15"):
        plan_windows(50, 16, overlap)

"""Integrating a velocity from noise at t = 1 to data at t = 0."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor

from plaudit.errors import RecipeError

Solver = Literal["euler", "heun", "midpoint", "ab2"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)

Velocity = Callable[[Tensor, float, int], Tensor]
"""velocity(x, t, step): dx/dt at x and time t, evaluated within the step of that index from 0."""


def time_grid(steps: int, shift: float = 1.0) -> list[float]:
    """steps + 1 times from 1 to 0: u = 1 - i / steps, moved to u / (u + (1 - u) / shift).

    A shift of 1 is the uniform grid; above 1 more of the steps are near noise (Esser et al., arXiv 2403.03206).
    """
    if steps < 1:
        raise RecipeError(f"sampling needs at least 1 step, not {steps}")
    if not shift > 0:
        raise RecipeError(f"the shift of the time grid must be above 0, not {shift:g}")
    # Computed from the step's index, not summed up, so that the last step ends at exactly 0.
    uniform = [1 - step / steps for step in range(steps + 1)]
    return uniform if shift == 1 else [u / (u + (1 - u) / shift) for u in uniform]


def integrate(
    velocity: Velocity,
    noise: Tensor,
    steps: int,
    solver: Solver = "euler",
    shift: float = 1.0,
    jumps: Collection[int] = (),
) -> Tensor:
    """x at t = 0 from x = noise at t = 1 in `steps` steps of the time grid.

    Euler (one evaluation a step) is of first order; Heun and midpoint (two evaluations) are of second, and so is ab2,
    Adams and Bashforth's two-step method for steps of any length, with one evaluation and one Euler step to begin.
    jumps: steps at which the velocity becomes another function. There ab2 begins anew (ours): the difference to the
    step before would be the jump's, not the trajectory's, and the method of first order.
    """
    if solver not in SOLVERS:
        raise RecipeError(f"solver is {', '.join(SOLVERS)}, not {solver!r}")
    x, times = noise, time_grid(steps, shift)
    before: tuple[Tensor, float] | None = None
    for step, (t, following) in enumerate(pairwise(times)):
        h = following - t
        if step in jumps:
            before = None
        v = velocity(x, t, step)
        move = v
        if solver == "heun":
            move = (v + velocity(x + h * v, following, step)) / 2
        elif solver == "midpoint":
            move = velocity(x + h / 2 * v, t + h / 2, step)
        elif solver == "ab2" and before is not None:
            earlier, length = before
            move = v + h / (2 * length) * (v - earlier)
        before = v, h
        x = x + h * move
    return x

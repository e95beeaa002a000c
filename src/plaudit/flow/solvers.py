"""Integrating a velocity from noise at t = 1 to data at t = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from plaudit.errors import RecipeError

Solver = Literal["euler", "heun", "midpoint"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)

Velocity = Callable[[Tensor, float, int], Tensor]
"""velocity(x, t, step): dx/dt at x and time t, evaluated within the step of that index from 0."""


def integrate(velocity: Velocity, noise: Tensor, steps: int, solver: Solver = "euler") -> Tensor:
    """x at t = 0 from x = noise at t = 1 in `steps` equal steps.

    Euler (one evaluation a step) is of first order; Heun and midpoint (two evaluations) are of second.
    """
    if steps < 1:
        raise RecipeError(f"sampling needs at least 1 step, not {steps}")
    if solver not in SOLVERS:
        raise RecipeError(f"solver is {', '.join(SOLVERS)}, not {solver!r}")
    x = noise
    for step in range(steps):
        # Computed from the step's index, not summed up, so that the last step ends at exactly 0.
        t, following = 1 - step / steps, 1 - (step + 1) / steps
        h = following - t
        v = velocity(x, t, step)
        if solver == "heun":
            v = (v + velocity(x + h * v, following, step)) / 2
        elif solver == "midpoint":
            v = velocity(x + h / 2 * v, t + h / 2, step)
        x = x + h * v
    return x

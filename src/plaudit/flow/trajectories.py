"""Two checkpoints on one trajectory: one hands over to the other on the way, or their velocities are averaged."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from plaudit.flow.solvers import Velocity
from plaudit.settings import Settings, Share


class Trajectory(Settings):
    """How a second checkpoint takes part.

    mode "hand_over": the first moves the clip while progress is below `at`, the second from there on. Progress runs
    from 0 at noise to 1 at music, in steps, as for guidance; a step is wholly of one checkpoint.
    mode "average": both move it at every step, the second with weight `share`, the first with the rest.
    """

    mode: Literal["hand_over", "average"] = "hand_over"
    at: Share = 0.5
    share: Share = 0.5


def shared(first: Velocity, second: Velocity, trajectory: Trajectory, steps: int) -> Velocity:
    """The velocity of both checkpoints, in one state space, over a trajectory of `steps` steps."""
    if trajectory.mode == "average":
        return average(first, second, trajectory.share)
    return hand_over(first, second, hand_over_step(trajectory.at, steps))


def hand_over(first: Velocity, second: Velocity, step: int) -> Velocity:
    """`first` in the steps before `step`, `second` from it on; a solver of several steps must forget its past there."""

    def velocity(x: Tensor, t: float, now: int) -> Tensor:
        return (first if now < step else second)(x, t, now)

    return velocity


def average(first: Velocity, second: Velocity, share: float) -> Velocity:
    """(1 - share) first + share second; one that has no share is not evaluated."""
    if share in (0.0, 1.0):
        return second if share else first

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        return (1 - share) * first(x, t, step) + share * second(x, t, step)

    return velocity


def hand_over_step(at: float, steps: int) -> int:
    """The first step whose progress, step / steps, is not below `at`; `steps` where none is."""
    return next((step for step in range(steps) if step / steps >= at), steps)

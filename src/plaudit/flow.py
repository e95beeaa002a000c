"""Rectified flow, independent of any network: path and loss, guidance, solvers, two-model trajectories, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from plaudit.errors import RecipeError
from plaudit.generate.settings import SOLVERS, Boundaries, Guidance, Solver, Trajectory


def interpolate(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) data + t noise. data and noise [B, ...], t [B]."""
    t = t.view(-1, *[1] * (data.dim() - 1))
    return (1 - t) * data + t * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """dx_t / dt along the path, noise - data, the same at every t."""
    return noise - data


def logit_normal_time(n: int, generator: torch.Generator) -> Tensor:
    """n training times in (0, 1): the sigmoid of standard normals, most of them mid-way."""
    return torch.randn(n, generator=generator).sigmoid()


def flow_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the velocity per sample, in float32: two times [B, ...] -> [B]."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


Branch = Literal["conditional", "text", "negative"]
"""A pass with text and score; with the text alone; with the negative text alone."""


LEAST_TIME = 1e-3
"""Times below it count as it where a velocity is computed from the latents that it predicts."""


def branches(guidance: Guidance, scored: bool) -> tuple[Branch, ...]:
    """The passes that a step under constant `guidance` needs; scored: whether the clip has a conditioning score."""
    if guidance.mode == "joint":
        return ("conditional",) if guidance.weight <= 1 else ("conditional", "negative")
    if not scored:
        # Without a score the text pass is the conditional one.
        return ("conditional",) if guidance.text_weight == 1 else ("conditional", "negative")
    if guidance.text_weight == guidance.reward_weight == 1:
        return ("conditional",)
    if guidance.text_weight == guidance.reward_weight:
        return ("conditional", "negative")
    return ("conditional", "text") if guidance.text_weight == 1 else ("conditional", "text", "negative")


def combine(guidance: Guidance, velocities: Mapping[Branch, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The guided velocity [B, ...] from those of `branches` at x [B, ...] and times t [B], or [1] for all."""
    conditional = velocities["conditional"]
    if len(velocities) == 1:
        return conditional
    guided = _guided(guidance, velocities)
    if not guidance.rescale:
        return guided
    # Not the velocity is rescaled but the latents that it predicts: the noise in it has to be removed as a whole.
    t = t.clamp(min=LEAST_TIME).view(-1, *[1] * (x.dim() - 1))
    latents, axes = x - t * guided, tuple(range(1, x.dim()))
    ratio = (x - t * conditional).std(axes, keepdim=True) / latents.std(axes, keepdim=True).clamp(min=1e-12)
    return (x - latents * (1 + guidance.rescale * (ratio - 1))) / t


def _guided(guidance: Guidance, velocities: Mapping[Branch, Tensor]) -> Tensor:
    conditional = velocities["conditional"]
    if "text" not in velocities:
        weight = guidance.weight if guidance.mode == "joint" else guidance.text_weight
        return weight * conditional + (1 - weight) * velocities["negative"]
    text = velocities["text"]
    guided = text + guidance.reward_weight * (conditional - text)
    if "negative" in velocities:
        guided = guided + (guidance.text_weight - 1) * (text - velocities["negative"])
    return guided


Velocity = Callable[[Tensor, float, int], Tensor]
"""velocity(x, t, step): dx/dt at x and time t, evaluated within the step of that index from 0."""

OnStep = Callable[[int, int], None]
"""Called with a solver step's index from 0 and the number of steps, before the step."""


def unobserved(step: int, steps: int) -> None:
    """Ignored."""


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
    on_step: OnStep = unobserved,
) -> Tensor:
    """x at t = 0 from x = noise at t = 1 in `steps` steps of the time grid.

    Euler (one evaluation a step) is of first order; Heun and midpoint (two evaluations) are of second, and so is ab2,
    the two-step Adams-Bashforth method for steps of any length, with one evaluation and one Euler step to begin.
    heun-euler is Heun with a last step by Euler, as published.
    jumps: steps at which the velocity becomes another function. There ab2 restarts (ours): the difference to the step
    before would be the jump's, not the trajectory's, and the method of first order.
    on_step(step, steps) is called before each step; what it raises ends the integration.
    """
    if solver not in SOLVERS:
        raise RecipeError(f"solver is {', '.join(SOLVERS)}, not {solver!r}")
    x, times = noise, time_grid(steps, shift)
    before: tuple[Tensor, float] | None = None
    for step, (t, following) in enumerate(pairwise(times)):
        on_step(step, steps)
        h = following - t
        if step in jumps:
            before = None
        v = velocity(x, t, step)
        move = v
        if solver == "heun" or (solver == "heun-euler" and step < steps - 1):
            move = (v + velocity(x + h * v, following, step)) / 2
        elif solver == "midpoint":
            move = velocity(x + h / 2 * v, t + h / 2, step)
        elif solver == "ab2" and before is not None:
            earlier, length = before
            move = v + h / (2 * length) * (v - earlier)
        before = v, h
        x = x + h * move
    return x


def step_progress(steps: int, boundaries: Boundaries = "exact") -> list[float]:
    """The progress at which each step begins, from 0 at noise: step / steps.

    "published" gives 1 - t for times t in float32, as the published sampler computes it. Its guidance interval is
    closed at both ends, and by rounding 0.2 to 0.8 is 14 of 25 steps, where ours is 15 and exact arithmetic would give
    16.
    """
    if boundaries == "published":
        return [1 - t for t in torch.linspace(1, 0, steps + 1).tolist()[:-1]]
    return [step / steps for step in range(steps)]


def two_model_velocity(
    first: Velocity, second: Velocity, trajectory: Trajectory, steps: int, boundaries: Boundaries = "exact"
) -> Velocity:
    """The velocity of two models of the same latents over a trajectory of `steps` steps.

    A multistep solver must restart at a switch. A model of weight 0 is not evaluated.
    """
    if trajectory.mode == "switch":
        start = switch_step(trajectory.at, steps, boundaries)
        return lambda x, t, step: (first if step < start else second)(x, t, step)
    weight = trajectory.weight
    if weight in (0.0, 1.0):
        return second if weight else first
    return lambda x, t, step: (1 - weight) * first(x, t, step) + weight * second(x, t, step)


def switch_step(at: float, steps: int, boundaries: Boundaries = "exact") -> int:
    """The first step whose progress, step / steps, is not below `at`; `steps` where none is.

    "published" rounds at * steps, halves to even: a switch at 0.5 of 25 steps is at step 12, ours at 13.
    """
    if boundaries == "published":
        return round(at * steps)
    return next((step for step in range(steps) if step / steps >= at), steps)


@dataclass(frozen=True)
class Windows:
    """K overlapping windows of `length` frames over `total` frames (MultiDiffusion: Bar-Tal et al., arXiv 2302.08113).

    There is one state, so overlapping windows see the same frames at every step. The spacing and the weights are ours.
    index: [K, length], the frame at each position of a window; in a loop a window may wrap around.
    weights: [K, length], above zero; over any frame they sum to one.
    """

    total: int
    length: int
    index: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, x: Tensor) -> Tensor:
        """x [B, total, C] -> all windows as one batch [K * B, length, C], the first window of every clip first."""
        return x[:, self.index.to(x.device)].transpose(0, 1).flatten(0, 1)

    def join(self, parts: Tensor) -> Tensor:
        """[K * B, length, C] -> the weighted sum [B, total, C]: the inverse of `cut` where windows agree."""
        parts = parts.unflatten(0, (len(self), -1)).transpose(0, 1) * self.weights.to(parts)[:, :, None]
        blank = parts.new_zeros(len(parts), self.total, parts.shape[-1])
        return blank.index_add(1, self.index.flatten().to(parts.device), parts.flatten(1, 2))


def plan_windows(total: int, length: int, overlap: int, loop: bool = False) -> Windows:
    """The fewest evenly spaced windows of `length` over `total` frames that overlap their neighbours by `overlap`.

    In a loop the last window overlaps the first, and there are at least two, so that the ends of one lie inside
    another. Windows are no longer than the piece. RecipeError for an overlap outside 1 to `length` - 1.
    """
    if not 1 <= overlap < max(2, length):
        raise RecipeError(f"windows of {length} frames must overlap by 1 to {length - 1} of them, not {overlap}")
    length = min(length, total)
    # A window as long as the loop ends where it began; another one, half a loop further, covers that point.
    overlap = min(overlap, length // 2 if loop else length - 1)
    stride = max(1, length - overlap)
    if loop:
        count = max(2, math.ceil(total / stride)) if total > 1 else 1
        starts = [round(i * total / count) for i in range(count)]
    else:
        count = 1 + math.ceil((total - length) / stride)
        starts = [round(i * (total - length) / max(1, count - 1)) for i in range(count)]
    index = (torch.tensor(starts)[:, None] + torch.arange(length)) % total  # [K, length]
    weights = _ramps(starts, total, length, loop)
    over = torch.zeros(total, dtype=weights.dtype).index_add(0, index.flatten(), weights.flatten())
    return Windows(total, length, index, (weights / over[index]).float())


def _ramps(starts: Sequence[int], total: int, length: int, loop: bool) -> Tensor:
    """[K, length] in float64: squared-sine ramps over the overlap with each neighbour, one between them.

    Where two windows overlap, the ramps sum to one; the ends of a piece have none.
    """
    weights = torch.ones(len(starts), length, dtype=torch.float64)
    for i, start in enumerate(starts):
        before = starts[i - 1] - (total if i == 0 else 0)
        after = starts[(i + 1) % len(starts)] + (total if i == len(starts) - 1 else 0)
        if loop or i > 0:
            weights[i] *= _rise(length, before + length - start)
        if loop or i < len(starts) - 1:
            weights[i] *= _rise(length, start + length - after).flip(0)
    return weights


def _rise(length: int, ramp: int) -> Tensor:
    """From zero to one over the first `ramp` of `length` frames, at their centres."""
    position = (torch.arange(length, dtype=torch.float64) + 0.5) / max(ramp, 1)
    return (math.pi / 2 * position.clamp(max=1)).sin().square()


def windowed(velocity: Velocity, windows: Windows, at_once: int | None = None) -> Velocity:
    """The velocity of a piece [B, total, C] from that of W of its windows, [W * B, length, C].

    at_once: the largest W, None for all windows.
    """

    def blended(x: Tensor, t: float, step: int) -> Tensor:
        parts = windows.cut(x).split((at_once or len(windows)) * len(x))
        return windows.join(torch.cat([velocity(part, t, step) for part in parts]))

    return blended

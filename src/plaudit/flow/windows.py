"""Longer than one pass: windows over one long state, whose velocities are blended where they overlap.

The state is one, so what windows share is the same at every step; each window pulls on it (MultiDiffusion: Bar-Tal et
al., arXiv 2302.08113). The spacing and the weights are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.errors import RecipeError
from plaudit.flow.solvers import Velocity


@dataclass(frozen=True)
class Windows:
    """K windows of `length` frames over `total` frames, of which some frames lie in several.

    index: [K, length], the frame that each place of a window stands for; in a loop a window may go on at the beginning.
    weights: [K, length], above zero; over any frame they sum to one.
    """

    total: int
    length: int
    index: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, x: Tensor) -> Tensor:
        """x [B, total, C] -> all windows as one batch [K * B, length, C], first the first window of every clip."""
        return x[:, self.index.to(x.device)].transpose(0, 1).flatten(0, 1)

    def join(self, parts: Tensor) -> Tensor:
        """[K * B, length, C] -> the weighted sum [B, total, C]: the inverse of `cut` where windows agree."""
        parts = parts.unflatten(0, (len(self), -1)).transpose(0, 1) * self.weights.to(parts)[:, :, None]
        whole = parts.new_zeros(len(parts), self.total, parts.shape[-1])
        return whole.index_add(1, self.index.flatten().to(parts.device), parts.flatten(1, 2))


def plan_windows(total: int, length: int, overlap: int, loop: bool = False) -> Windows:
    """As few windows of `length` over `total` frames as share at least `overlap` with each neighbour, evenly spaced.

    In a loop the last window's neighbour is the first, and there are at least two: the ends of one lie inside another.
    Windows are no longer than the piece. RecipeError for an overlap that is not from 1 to below a window's length.
    """
    if not 1 <= overlap < max(2, length):
        raise RecipeError(f"windows of {length} frames must overlap by 1 to {length - 1} of them, not {overlap}")
    length = min(length, total)
    # A window as long as the loop ends where it began; half a loop on, another one covers that place.
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
    """[K, length] in float64: squared-sine ramps over what a window shares with each neighbour, one between them.

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
    """From zero to one over the first `ramp` of `length` places, at their centres."""
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / max(ramp, 1)
    return (math.pi / 2 * place.clamp(max=1)).sin().square()


def windowed(velocity: Velocity, windows: Windows, at_once: int | None = None) -> Velocity:
    """The velocity of the whole state [B, total, C] from one that takes W of its windows, [W * B, length, C].

    at_once: the largest W that `velocity` is given, None for all windows.
    """

    def blended(x: Tensor, t: float, step: int) -> Tensor:
        parts = windows.cut(x).split((at_once or len(windows)) * len(x))
        return windows.join(torch.cat([velocity(part, t, step) for part in parts]))

    return blended

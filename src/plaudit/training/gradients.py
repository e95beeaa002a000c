"""Gradients of an update: those of a process that computes them alone, or of threads that share its clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plaudit.workers import Workers, even_slices

if TYPE_CHECKING:
    from plaudit.training.distributed import DistributedModel
    from plaudit.training.loop import Inputs, Objective

Parts = Sequence[tuple[int, "Inputs"]]
"""The batches of an update, each with its index."""


def compute_gradients(
    distributed: DistributedModel, objective: Objective, parts: Parts, workers: Workers, one_by_one: bool = False
) -> dict[str, Tensor]:
    """Fill in the gradients of the mean loss over `parts`; this process's mean of each named value.

    one_by_one: workers don't compute at the same time.
    """
    if workers.count == 1:
        return _alone(distributed, objective, parts)
    clips = len(next(iter(parts[0][1].values())))
    shares = [_Share(rows, (rows.stop - rows.start) / clips) for rows in even_slices(clips, workers.count)]

    def compute(share: _Share) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        return share.gradients(distributed, objective, parts)

    results = [compute(share) for share in shares] if one_by_one else workers.map(compute, shares)
    join_gradients(distributed.trainable, [gradients for _, gradients in results])
    return {name: _sum([values[name] for values, _ in results]) for name in results[0][0]}


def _alone(distributed: DistributedModel, objective: Objective, parts: Parts) -> dict[str, Tensor]:
    """By this thread; gradients are exchanged with other processes."""
    for parameter in distributed.trainable:
        parameter.grad = None
    rows = []
    for number, (_, inputs) in enumerate(parts, start=1):
        with distributed.no_sync(number < len(parts)):
            with distributed.accelerator.autocast():
                values = objective.loss(distributed.wrapped, inputs)
            distributed.accelerator.backward(values["loss"] / len(parts))
        rows.append({name: value.detach().float() for name, value in values.items()})
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}


@dataclass(frozen=True)
class _Share:
    """A worker's clips of each batch, and what fraction of the batch they are."""

    rows: slice
    fraction: float

    def gradients(
        self, distributed: DistributedModel, objective: Objective, parts: Parts
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """What these clips add to the mean over all clips of `parts`: to each named value, and to each gradient."""
        weight, rows = self.fraction / len(parts), []
        total: list[Tensor | None] = [None] * len(distributed.trainable)
        for _, inputs in parts:
            with distributed.accelerator.autocast():
                values = objective.loss(distributed.wrapped, {name: value[self.rows] for name, value in inputs.items()})
            # Not backward(): threads would add to the same tensors, in any order.
            gradients = torch.autograd.grad(values["loss"] * weight, distributed.trainable, allow_unused=True)
            total = [_plus(a, b) for a, b in zip(total, gradients, strict=True)]
            rows.append({name: value.detach().float() * weight for name, value in values.items()})
        return {name: _sum([row[name] for row in rows]) for name in rows[0]}, total


@torch.no_grad()
def join_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]]) -> None:
    """Set each parameter's gradient to the sum of those of several workers, which may share memory.

    It is laid out as the parameter is, as fused optimizers need it, in the tensor of the update before.
    """
    for parameter, *terms in zip(parameters, *gradients, strict=True):
        first, *others = [term for term in terms if term is not None] or (None,)
        if first is None:
            parameter.grad = None
            continue
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        if others:
            torch.add(first, others[0], out=parameter.grad)
        else:
            parameter.grad.copy_(first)
        for other in others[1:]:
            parameter.grad.add_(other)


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()

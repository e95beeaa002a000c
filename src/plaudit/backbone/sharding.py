"""What is done to tensors of which each process may hold a share (FSDP's DTensors), and to ordinary ones alike.

Whoever keeps, averages or restores weights uses these and need not know how the model is spread over processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, detached; memory is shared."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, detached. Of a sharded one every process must ask at the same time."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_as(target: Tensor, source: Tensor) -> Tensor:
    """`source` spread over processes as `target` is.

    Every process has the whole of it (it has read the same file), so each cuts its own share and nothing is sent.
    """
    if isinstance(source, DTensor) or not isinstance(target, DTensor):
        return source
    source = source.to(target.device, target.dtype)
    return distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def fill(target: Tensor, source: Tensor) -> None:
    """Copy `source`, whole or sharded as `target` is, into `target`."""
    target.copy_(shared_as(target, source))


def snapshot(tree: Any, keep: bool = True) -> Any:
    """A copy in ordinary memory of the tensors in nested dicts and lists, whole; nothing of it changes later.

    Of sharded tensors every process must ask at the same time; those that need no copy say `keep=False`, get None in
    the place of tensors, and hold one whole tensor at a time.
    """
    if isinstance(tree, Tensor):
        full = whole(tree)
        return full.to("cpu", copy=True) if keep else None
    if isinstance(tree, dict):
        return {key: snapshot(value, keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [snapshot(value, keep) for value in tree]
    return tree

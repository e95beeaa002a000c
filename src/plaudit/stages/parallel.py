"""One training pass on one process or many: who computes which clips, and how the network is spread."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.sharding import local, whole
from plaudit.errors import RunError
from plaudit.stages.settings import LoopSettings


def accelerator_for(precision: str) -> Accelerator:
    """An Accelerator as the loop wants it; under torchrun or `accelerate launch` it joins the other processes.

    RunError where the launcher shards by itself.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    # Accelerate leaves processes without GPUs unconnected unless told that the CPU is meant.
    on_cpu = not alone and not torch.cuda.is_available()
    # Buffers hold constants; sending them at every forward would be in the way of two forwards before a backward.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu or None, kwargs_handlers=[ddp])
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RunError("start processes without the launcher's own FSDP or DeepSpeed; set loop.strategy=fsdp instead")
    return accelerator


@dataclass(frozen=True)
class Share:
    """What one process does of every update: these of its batches, and of each the clips at `rows`."""

    parts: range
    rows: slice


def share_of(batch: int, accumulate: int, rank: int, processes: int) -> Share:
    """The share of process `rank` in an update of `accumulate` batches of `batch` clips.

    The update is the same for any number of processes: they divide the batches among them as far as these go, then
    each batch. RunError where the clips can't be divided evenly.
    """
    groups = math.gcd(accumulate, processes)
    width = processes // groups
    if batch % width:
        raise RunError(
            f"{processes} processes can't share {accumulate} batches of {batch} clips evenly; "
            "start another number of them, or change batch and accumulate"
        )
    group, place = divmod(rank, width)
    each, clips = accumulate // groups, batch // width
    return Share(range(group * each, (group + 1) * each), slice(place * clips, (place + 1) * clips))


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network, outermost first: members of its module lists that have parts of their own."""
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            found += [member for member in child if any(True for _ in member.children())]
        else:
            found += blocks_of(child)
    return found


@dataclass(frozen=True)
class Spread:
    """A network while it is trained.

    plain: the network as it was given, whole on every process. inner: the one whose parameters are updated, which is
    `plain` itself or a sharded copy of it. wrapped: what the loss calls.
    """

    plain: nn.Module
    inner: nn.Module
    wrapped: nn.Module
    accelerator: Accelerator

    @property
    def sharded(self) -> bool:
        """Whether each process holds a share of the parameters."""
        return isinstance(self.inner, FSDPModule)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters to be updated."""
        return [p for p in self.inner.parameters() if p.requires_grad]

    @contextmanager
    def unsynchronized(self, wanted: bool) -> Iterator[None]:
        """Gradients of this process alone, until the block ends, where `wanted`: others are told with the last part."""
        if isinstance(self.inner, FSDPModule):
            self.inner.set_requires_gradient_sync(not wanted)
            yield
        elif wanted:
            with self.accelerator.no_sync(self.wrapped):
                yield
        else:
            yield

    def clip(self, largest: float) -> Tensor:
        """Scale gradients to a norm of at most `largest`; the norm before."""
        return whole(torch.as_tensor(self.accelerator.clip_grad_norm_(self.trainable, largest)))

    def mean(self, values: Tensor) -> Tensor:
        """Means over processes, elementwise."""
        return self.accelerator.reduce(values, "mean")


@contextmanager
def spread(network: nn.Module, loop: LoopSettings, accelerator: Accelerator) -> Iterator[Spread]:
    """`network` made ready for training on all processes, until the block ends; then it is a plain module again, with
    the trained weights.

    FSDP is PyTorch's own `fully_shard`, block by block, because Accelerate (1.15) ignores its plugin where there is no
    GPU and so could not be tested everywhere. Weights are kept, gathered and reduced in float32; autocast alone lowers
    the precision, as under DDP. Processes must begin with equal weights.
    """
    network.to(accelerator.device)
    sharded = loop.strategy == "fsdp" and accelerator.num_processes > 1
    inner = copy.deepcopy(network) if sharded else network
    blocks = blocks_of(inner)
    if loop.activation_checkpointing:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if loop.compile:
        for block in blocks:
            block.compile()
    if sharded:
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for module in [*blocks, inner]:
            fully_shard(module, mesh=mesh)
    with warnings.catch_warnings():  # `broadcast_buffers` has another name from PyTorch 2.13 on
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = inner if sharded else accelerator.prepare_model(inner)
    try:
        yield Spread(network, inner, wrapped, accelerator)
        if sharded:
            copy_weights(inner, network)
    finally:
        if not sharded:
            accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        for module in [inner, *blocks]:
            module.__dict__.pop("forward", None)
            module._compiled_call_impl = None
        accelerator.free_memory()


@torch.no_grad()
def copy_weights(sharded: nn.Module, plain: nn.Module) -> None:
    """Trainable parameters of a sharded network, whole, into a plain one; all processes at the same time."""
    for (_, source), (_, target) in zip(sharded.named_parameters(), plain.named_parameters(), strict=True):
        if source.requires_grad:
            local(target).copy_(whole(source))

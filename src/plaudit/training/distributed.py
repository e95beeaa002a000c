"""The processes of a run, and a network that is trained on all of them: replicated (DDP) or sharded (FSDP)."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs, patch_environment
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.compiling import blocks_of, compile_blocks, restore_blocks
from plaudit.backbone.ema import (
    full_tensor,
    local_tensor,
)
from plaudit.devices import resolve_device
from plaudit.errors import RunError
from plaudit.training.settings import LoopSettings

T = TypeVar("T")


def process_device(name: str) -> torch.device:
    """The device of this process, of those called `name` (resolve_device); under torchrun each process has its own GPU.

    ModelError for a device that is not here, RunError for one that several processes would share.
    """
    device = resolve_device(name)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if name not in ("auto", "cpu", "cuda"):
        raise RunError(f"several processes can't share --device {name}; each takes its own with --device cuda or cpu")
    if device.type != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def accelerator_for(precision: str, device: torch.device | None = None) -> Accelerator:
    """An Accelerator with the settings of the loop; under torchrun or `accelerate launch` it joins the other processes.

    device: of this process, None as `process_device` chooses. RunError where the launcher shards by itself.
    """
    device = process_device("auto") if device is None else device
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    before = AcceleratorState._shared_state
    if alone and before and (before["device"], before["_mixed_precision"]) != (device, precision):
        AcceleratorState._reset_state(reset_partial_state=True)  # Accelerate keeps those of the process's first one
    # Accelerate leaves processes without GPUs unconnected without cpu=True.
    on_cpu = not alone and device.type == "cpu"
    # Buffers hold constants; sending them at every forward would be in the way of two forwards before a backward.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # All threads share one cache of cast weights, which the first to leave autocast empties. Two forward passes of a
    # thread would then use one cast weight or two, as it happens, and their gradients would be rounded otherwise.
    autocast = AutocastKwargs(cache_enabled=device.type != "cpu")
    with patch_environment(**({"ACCELERATE_TORCH_DEVICE": str(device)} if alone else {})):
        accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu or None, kwargs_handlers=[ddp, autocast])
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RunError("launch without the launcher's FSDP or DeepSpeed; set training_loop.strategy=fsdp instead")
    return accelerator


BARRIER_TIMEOUT = timedelta(days=60)
"""How long the others wait for the main process, which may encode or generate for days. Training keeps its
short limit, so that a process that hangs is noticed."""


class ProcessGroup:
    """All processes of a run. Work that is not training is done by the main one.

    Use as a context: at the end it closes the process group, without which some processes abort on exit.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.many = accelerator.num_processes > 1
        self.is_main = accelerator.is_main_process
        # Waiting on gloo costs nothing; on a GPU's group it would be a kernel that spins.
        self._waiting = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT) if self.many else None

    def barrier(self) -> None:
        """Return once every process has called it."""
        if self.many:
            dist.barrier(group=self._waiting)

    def broadcast(self, value: T) -> T:
        """The main process's value, on every process."""
        if not self.many:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._waiting)
        return values[0]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The block runs on the main process, then on the others: work that skips existing results is done once."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        if self.many:
            dist.destroy_process_group()


@dataclass(frozen=True)
class RankSlice:
    """The part of every update that one process computes: batches `parts`, and of each the clips at `rows`."""

    parts: range
    rows: slice


def rank_slice(batch: int, accumulate: int, rank: int, processes: int) -> RankSlice:
    """The part of process `rank` in an update of `accumulate` batches of `batch` clips.

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
    return RankSlice(range(group * each, (group + 1) * each), slice(place * clips, (place + 1) * clips))


def checkpoint_blocks(blocks: list[nn.Module]) -> None:
    """Let blocks keep their inputs alone, and recompute themselves in the backward pass."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


@dataclass(frozen=True)
class DistributedModel:
    """A network while it is trained.

    plain: the original network, unsharded on every process. inner: the one whose parameters are updated, `plain` itself
    or a sharded copy of it. wrapped: the one that the loss calls.
    """

    plain: nn.Module
    inner: nn.Module
    wrapped: nn.Module
    accelerator: Accelerator

    @property
    def sharded(self) -> bool:
        """Whether each process holds a shard of the parameters."""
        return isinstance(self.inner, FSDPModule)

    @cached_property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters to be updated."""
        return [p for p in self.inner.parameters() if p.requires_grad]

    @contextmanager
    def no_sync(self, enabled: bool) -> Iterator[None]:
        """Gradients stay on this process until the block ends, where `enabled`."""
        if isinstance(self.inner, FSDPModule):
            self.inner.set_requires_gradient_sync(not enabled)
            yield
        elif enabled:
            with self.accelerator.no_sync(self.wrapped):
                yield
        else:
            yield

    def clip(self, largest: float) -> Tensor:
        """Scale gradients to a norm of at most `largest`; the norm before."""
        return full_tensor(torch.as_tensor(self.accelerator.clip_grad_norm_(self.trainable, largest)))

    def mean(self, values: Tensor) -> Tensor:
        """Means over processes, elementwise."""
        return self.accelerator.reduce(values, "mean")


@contextmanager
def distribute(network: nn.Module, loop: LoopSettings, accelerator: Accelerator) -> Iterator[DistributedModel]:
    """`network` prepared for training on all processes until the block ends; then it is a plain module again, with the
    trained weights.

    FSDP is PyTorch's `fully_shard`, block by block, because Accelerate (1.15) ignores its plugin without a
    GPU and so could not be tested everywhere. Weights are kept, gathered and reduced in float32; autocast alone lowers
    the precision, as under DDP. Processes must begin with equal weights.
    """
    network.to(accelerator.device)
    sharded = loop.strategy == "fsdp" and accelerator.num_processes > 1
    inner = copy.deepcopy(network) if sharded else network
    blocks = blocks_of(inner)
    if loop.compile:
        compile_blocks(blocks)
    if loop.activation_checkpointing:
        checkpoint_blocks(blocks)
    if sharded:
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for module in [*blocks, inner]:
            fully_shard(module, mesh=mesh)
    with warnings.catch_warnings():  # `broadcast_buffers` has another name from PyTorch 2.13 on
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = inner if sharded else accelerator.prepare_model(inner)
    try:
        yield DistributedModel(network, inner, wrapped, accelerator)
        if sharded:
            copy_weights(inner, network)
    finally:
        if not sharded:
            accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        restore_blocks([inner, *blocks])
        accelerator.free_memory()


@torch.no_grad()
def copy_weights(sharded: nn.Module, plain: nn.Module) -> None:
    """Copy the trainable parameters of a sharded network into a plain one; all processes at the same time."""
    for (_, source), (_, target) in zip(sharded.named_parameters(), plain.named_parameters(), strict=True):
        if source.requires_grad:
            local_tensor(target).copy_(full_tensor(source))

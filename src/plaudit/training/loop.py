"""The training loop: objectives, parallelism, loss guard, checkpoints, metrics, EMA.

A checkpoint holds unsharded tensors whatever the strategy, so that a run can be resumed on another number of processes.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import shutil
import signal
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import patch_environment
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.compiling import blocks_of, compile_blocks, restore_blocks
from plaudit.backbone.ema import (
    KEPT_LENGTHS,
    PostHocEMA,
    copy_into,
    full_tensor,
    load_parameters,
    local_tensor,
    sharded_like,
    snapshot,
)
from plaudit.devices import resolve_device
from plaudit.errors import ModelError, Preempted, RunError
from plaudit.machine import device_memory, peak_tflops
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress
from plaudit.storage import (
    checkpoint_damage,
    load_tensors,
    save_checkpoint,
    save_tensors,
    to_json,
    write_atomically,
    write_json,
)
from plaudit.training.gradients import compute_gradients
from plaudit.training.settings import EmaSettings, LoopSettings, TrainSettings
from plaudit.workers import Workers, cpu_workers

T = TypeVar("T")

Inputs = dict[str, Tensor]
"""One batch with everything random about it already drawn, by name; the first axis of each tensor is the clips'."""


class Objective(Protocol):
    """A stage's loss in two halves: `draw` reads data and draws random numbers in other threads; `loss` computes."""

    def draw(self, index: int, part: slice) -> Inputs:
        """The clips at `part` of batch `index`.

        Depends on both alone. Random numbers are drawn for the whole batch and then cut, so that they are the same on
        any number of processes.
        """

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Named scalars, "loss" among them, each the mean over the clips; `inputs` are where the network is.

        On a CPU several threads call it at once, each with some of a batch's clips, unless the objective has an
        attribute `one_thread` that is true.
        """


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
    with patch_environment(**({"ACCELERATE_TORCH_DEVICE": str(device)} if alone else {})):
        accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu or None, kwargs_handlers=[ddp])
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


FAILURE = "failure"

HISTORY, MIN_HISTORY = 50, 10
"""Losses that the median is computed from, at most and at least (ours)."""


class LossGuard:
    """Detects a lost loss or gradient: not finite, or `max_loss_ratio` times the median of recent losses.

    The device decides (`rejected`), so that the optimizer's step needs not wait for the numbers to reach the CPU.
    """

    def __init__(self, max_loss_ratio: float) -> None:
        self._max_loss_ratio = max_loss_ratio
        self._recent: deque[float] = deque(maxlen=HISTORY)

    def rejected(self, loss: Tensor, norm: Tensor) -> Tensor:
        """1 where an update with this loss and norm of the gradient must not be made, 0 where it may: float32 []."""
        accepted = loss.isfinite() & norm.isfinite()
        if (usual := self._usual()) is not None:
            accepted &= loss <= self._max_loss_ratio * abs(usual)
        return (~accepted).float()

    def accept(self, loss: float) -> None:
        """Remember the loss of an update that was made."""
        self._recent.append(loss)

    def reason(self, loss: float, norm: float) -> str:
        """Why an update was rejected, in words."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm became {norm}"
        return f"the loss jumped from about {self._usual():.4g} to {loss:.4g}"

    def _usual(self) -> float | None:
        return statistics.median(self._recent) if len(self._recent) >= MIN_HISTORY else None


def save_failure(
    folder: Path, distributed: DistributedModel, batches: list[tuple[int, Inputs]], facts: dict[str, Any]
) -> Path:
    """Save a failed update to `folder/failure`: the weights before it, and each process's batches.

    Every process must call it. The optimizer has not stepped.
    """
    place, accelerator = folder / FAILURE, distributed.accelerator
    if accelerator.is_main_process:
        shutil.rmtree(place, ignore_errors=True)
    weights = {name: p for name, p in distributed.inner.named_parameters() if p.requires_grad}
    weights = snapshot(weights, keep=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_tensors(place / "weights.safetensors", weights)
        write_json(place / "failure.json", facts)
    for index, inputs in batches:
        save_tensors(place / f"batch-{index:08d}-{accelerator.process_index:04d}.safetensors", inputs)
    accelerator.wait_for_everyone()
    return place


def replay(network: nn.Module, objective: Objective, folder: Path) -> dict[str, dict[str, float]]:
    """The values of each batch that `save_failure` left in a training pass's `folder`, computed again.

    `network` gets the weights from before the update. `torch.autograd.set_detect_anomaly(True)`, hooks or prints around
    it show where they are lost.
    """
    place = folder / FAILURE
    if not (place / "failure.json").exists():
        raise ModelError(f"{place} holds no failure; name the folder of a training pass that stopped")
    load_parameters(network, load_tensors(place / "weights.safetensors"))
    results = {}
    for path in sorted(place.glob("batch-*.safetensors")):
        values = objective.loss(network, load_tensors(path))
        results[path.stem] = {name: value.item() for name, value in values.items()}
    return results


class StopRequest:
    """Catches SIGTERM while its block lasts, so that the loop can stop between updates; in the main thread alone, where
    signals can be handled."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> StopRequest:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)


METRICS_FILE = "metrics.jsonl"

LOG_EVERY = 10


class MetricsLog:
    """Means over the last `LOG_EVERY` updates as rows of `metrics.jsonl`, written by the main process alone.

    Beside what the loss names, a row has the gradient's norm, the learning rate, clips a second over all processes,
    the fraction of the time spent waiting for data, memory in GB (of the GPU, or of the process), and, where the
    device's peak and the arithmetic of a clip (`flops`, of a whole update step) are known, model FLOPs utilization.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainSettings,
        loop: LoopSettings,
        accelerator: Accelerator,
        start: int,
        flops: int | None,
    ) -> None:
        self._path, self._settings, self._accelerator = folder / METRICS_FILE, settings, accelerator
        peak = loop.peak_tflops or peak_tflops(accelerator.device)
        self._flops_fraction = flops / (peak * 1e12 * accelerator.num_processes) if flops and peak else None
        self._trackers = _trackers(folder, loop) if accelerator.is_main_process else []
        self._window: list[dict[str, float]] = []
        self._waited = 0.0
        self._began = time.monotonic()
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.jsonl"):
                _forget_after(path, start)

    def update(self, step: int, values: dict[str, float], rate: float, waited: float) -> None:
        """Add update `step` (from 1), for whose data the loop waited so many seconds."""
        self._window.append(values)
        self._waited += waited
        if step % LOG_EVERY and step != self._settings.steps:
            return
        row = {name: sum(v[name] for v in self._window) / len(self._window) for name in values}
        seconds = time.monotonic() - self._began
        speed = len(self._window) * self._settings.batch * self._settings.accumulate / seconds
        row |= {
            "learning_rate": rate,
            "clips_per_second": round(speed, 2),
            "data_wait": round(self._waited / seconds, 4),
            "memory_gb": round(device_memory(self._accelerator.device) / 1e9, 3),
        }
        if self._flops_fraction is not None:
            row["mfu"] = round(speed * self._flops_fraction, 4)
        self.write(METRICS_FILE, step, row)
        self._window, self._waited, self._began = [], 0.0, time.monotonic()

    def write(self, name: str, step: int, values: dict[str, float]) -> None:
        """One row of the file `name`, and of every tracker."""
        if not self._accelerator.is_main_process:
            return
        with self._path.with_name(name).open("a", encoding="utf-8") as file:
            file.write(to_json({"step": step, **values}) + "\n")
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def close(self) -> None:
        """Finish the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def _trackers(folder: Path, loop: LoopSettings) -> list[GeneralTracker]:
    trackers = []
    for name in loop.trackers:
        kind = LOGGER_TYPE_TO_CLASS[name]
        try:
            # Both name the run: its folder, and those within it that lead to this pass.
            if kind.requires_logging_directory:
                tracker = kind(folder.name, logging_dir=folder / name)
            else:
                tracker = kind("plaudit", name="/".join(folder.parts[-3:]), dir=folder)
            tracker.start()
        except ImportError:
            raise RunError(f"tracker {name} is not installed; pip install 'plaudit[track]'") from None
        trackers.append(tracker)
    return trackers


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows that a killed run logged after its last checkpoint."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    write_atomically(path, "".join(to_json(row) + "\n" for row in rows if row["step"] <= step))


CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"


class Writer:
    """Writes files in another thread, one after the other; an error is raised at the next write, or at the end.

    Use as a context. What is written must not change any more: see `snapshot`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def submit(self, write: Callable[[], None]) -> None:
        """Write in the background. Waits for the write before, so that one copy of the weights at most is in memory."""
        self.wait()
        self._pending = self._pool.submit(write)

    def wait(self) -> None:
        """Return once everything is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception:
            if kind is None:  # the error that stopped training comes first
                raise
        finally:
            self._pool.shutdown()


def save(
    writer: Writer,
    folder: Path,
    step: int,
    distributed: DistributedModel,
    optimizer: torch.optim.Optimizer,
    ema: PostHocEMA,
    keep: int,
) -> None:
    """Checkpoint training after update `step`, and remove all but the last `keep`. Every process must call it."""
    state = {
        "network": {name: p for name, p in distributed.inner.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
    }
    is_main = distributed.accelerator.is_main_process
    copied = snapshot(state, keep=is_main)

    def write() -> None:
        place = folder / CHECKPOINTS
        place.mkdir(parents=True, exist_ok=True)
        save_checkpoint(place / f"{step:08d}.pt", copied)
        for old in checkpoints(folder)[:-keep]:
            old.unlink()

    if is_main:
        writer.submit(write)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training pass, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("*.pt"))


def resume(folder: Path, distributed: DistributedModel, optimizer: torch.optim.Optimizer, ema: PostHocEMA) -> int:
    """Fill everything from the newest checkpoint and return its step; 0 where there is none.

    ModelError where it is damaged.
    """
    if distributed.accelerator.is_main_process:
        for leftover in (path for place in (CHECKPOINTS, SNAPSHOTS) for path in (folder / place).glob("*.partial")):
            leftover.unlink()  # of a process that was killed while it wrote
    saved = checkpoints(folder)
    if not saved:
        return 0
    try:
        if (damage := checkpoint_damage(saved[-1])) is not None:
            raise ValueError(damage)
        state = torch.load(saved[-1], weights_only=True, map_location="cpu", mmap=True)
        for name, parameter in distributed.inner.named_parameters():
            if parameter.requires_grad:
                copy_into(parameter, state["network"][name])
        # How the optimizer computes is today's: a checkpoint may be of another form of it.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({**_shared(state["optimizer"], distributed), "param_groups": groups})
        ema.load_state_dict(state["ema"])
        return int(state["step"])
    except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # PyTorch's message on a foreign file advises to run the code in it.
        foreign = isinstance(error, pickle.UnpicklingError) or not str(error)
        reason = "it is not a checkpoint" if foreign else str(error).splitlines()[0]
        where = "an earlier checkpoint" if len(saved) > 1 else "the stage's start"
        raise ModelError(f"{saved[-1]} is damaged ({reason}); delete it to train from {where}") from None


def _shared(state: dict[str, Any], distributed: DistributedModel) -> dict[str, Any]:
    """An optimizer's state, which goes by the parameters' order, sharded as they are."""
    parameters = distributed.trainable
    entries = {
        number: {
            name: sharded_like(parameters[number], value) if value.shape == parameters[number].shape else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def save_snapshots(writer: Writer, folder: Path, ema: PostHocEMA, is_main: bool) -> None:
    """Save the running averages, from which those of other lengths are computed. Every process must call it."""
    copies = ema.snapshots(keep=is_main)

    def write() -> None:
        for snap in copies:
            snap.save(folder / SNAPSHOTS / f"{snap.step:08d}-{snap.sigma_rel:0<5}.safetensors")

    if is_main:
        writer.submit(write)


DECAY = 0.1
DEFAULT_LOOP = LoopSettings()


@dataclass(frozen=True)
class Callback:
    """A function called every so many updates, on the main process, while the network in training holds the weights
    that the pass would leave. run(step) returns numbers, which become a row of `<name>.jsonl`."""

    name: str
    every: int
    run: Callable[[int], dict[str, float]]


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of update `step` (from 0): linear warm-up, then constant, x0.1 at each fraction in `decay_at`.

    As published: update s of a warm-up of W has (s + 1) / (W + 1) of the rate, and the decay at fraction f of N updates
    is at W + f N.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    passed = sum(step - settings.warmup >= fraction * settings.steps for fraction in settings.decay_at)
    return settings.learning_rate * DECAY**passed


def train(
    network: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    loop: LoopSettings = DEFAULT_LOOP,
    callbacks: Sequence[Callback] = (),
    flops: int | None = None,
) -> PostHocEMA:
    """Train the parameters of `network` that require a gradient, in place; the running averages.

    Continues from the last checkpoint in `folder` and ends with the same weights as an uninterrupted run: batches and
    noise depend on the update's index alone, and an update is of the same clips on any number of processes, all of
    which must call this. On a CPU threads share the clips (`plaudit.workers`). flops: operations of one clip's part of
    an update, for MFU.

    Raises RunError when the loss is lost (see `LossGuard`), with the batches it was lost on in `folder/failure`;
    Preempted after SIGTERM, with a checkpoint; ModelError for a damaged checkpoint.
    """
    ranks = rank_slice(settings.batch, settings.accumulate, accelerator.process_index, accelerator.num_processes)
    with ExitStack() as stack:
        distributed = stack.enter_context(distribute(network, loop, accelerator))
        workers = stack.enter_context(_workers(distributed, objective, ranks))
        optimizer = _optimizer(distributed, settings)
        ema = running_averages(distributed.inner, settings.ema)
        start = resume(folder, distributed, optimizer, ema)
        metrics = stack.enter_context(closing(MetricsLog(folder, settings, loop, accelerator, start, flops)))
        writer = stack.enter_context(Writer())
        stop = stack.enter_context(StopRequest())
        guard = LossGuard(loop.max_loss_ratio)
        batches = stack.enter_context(closing(_batches(objective, ranks, settings, loop, start, accelerator.device)))
        distributed.wrapped.train()
        for step in range(start + 1, settings.steps + 1):
            rate = learning_rate(step - 1, settings)
            began = time.monotonic()
            parts = [next(batches) for _ in ranks.parts]
            waited = time.monotonic() - began
            one_by_one = loop.compile and step == start + 1  # the compiler works in one thread
            local = compute_gradients(distributed, objective, parts, workers, one_by_one)
            local["gradient_norm"] = distributed.clip(settings.max_grad_norm)
            reduced = distributed.mean(torch.stack([*local.values(), _flag(stop.received, accelerator.device)]))
            values = dict(zip([*local, "stop"], reduced, strict=True))
            rejected = guard.rejected(values["loss"], values["gradient_norm"])
            # What follows is computed while the numbers are on their way to the CPU.
            numbers = HostCopy(torch.stack([*values.values(), rejected]))
            _step(optimizer, rate, rejected)
            ema.update(step)
            *means, stops, lost = numbers.wait()
            row = dict(zip(local, means, strict=True))
            if lost:
                reason = guard.reason(row["loss"], row["gradient_norm"])
                place = save_failure(folder, distributed, parts, {"step": step, "reason": reason, "values": row})
                raise RunError(f"{reason} at step {step}; see {place}, and lower the learning rate")
            guard.accept(row["loss"])
            metrics.update(step, row, rate, waited)
            for callback in callbacks:
                if callback.every and step % callback.every == 0:
                    with workers.resting():
                        _run_callback(callback, step, distributed, ema if settings.weights == "ema" else None, metrics)
            if loop.snapshot_every and (step % loop.snapshot_every == 0 or step == settings.steps):
                save_snapshots(writer, folder, ema, accelerator.is_main_process)
            if stops or (step % settings.checkpoint_every == 0 and step < settings.steps):
                save(writer, folder, step, distributed, optimizer, ema, loop.keep_checkpoints)
            progress(step, settings.steps)
            if stops:
                writer.wait()
                raise Preempted(f"stopped by SIGTERM after update {step} of {settings.steps}; run it again to continue")
        distributed.wrapped.eval()
        if distributed.sharded:
            ema.gather()
    return ema


def _workers(distributed: DistributedModel, objective: Objective, ranks: RankSlice) -> AbstractContextManager[Workers]:
    """The threads that share this process's clips: on a CPU as many as there are processors. Several processes are
    one worker each."""
    alone = distributed.accelerator.num_processes == 1 and distributed.accelerator.device.type == "cpu"
    shared = alone and not getattr(objective, "one_thread", False)
    return cpu_workers(ranks.rows.stop - ranks.rows.start if shared else 1)


def _optimizer(distributed: DistributedModel, settings: TrainSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        distributed.trainable,
        settings.learning_rate,
        (0.9, 0.95),
        settings.adam_eps,
        settings.weight_decay,
        fused=True,
    )


def running_averages(network: nn.Module, settings: EmaSettings) -> PostHocEMA:
    """The averages that a pass keeps: the one that `settings` names, and those that others are reconstructed from."""
    return PostHocEMA(network, tuple(dict.fromkeys((settings.sigma_rel, *KEPT_LENGTHS))), settings.decay)


Drawn = tuple[int, Inputs, "torch.cuda.Event | None"]
"""Index of a batch, the batch where the network is, and on CUDA the event after which it is there."""


def _batches(
    objective: Objective,
    ranks: RankSlice,
    settings: TrainSettings,
    loop: LoopSettings,
    start: int,
    device: torch.device,
) -> Generator[tuple[int, Inputs]]:
    """(index, batch) of every batch that this process computes from update `start` on, on its device."""
    indices = (s * settings.accumulate + part for s in range(start, settings.steps) for part in ranks.parts)
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def draw(index: int) -> Drawn:
        inputs = objective.draw(index, ranks.rows)
        if copies is None:
            return index, {name: value.to(device) for name, value in inputs.items()}, None
        with torch.cuda.stream(copies):  # beside what the network computes
            moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in inputs.items()}
            return index, moved, copies.record_event()

    batches = prefetch(draw, indices, depth=loop.prefetch, threads=loop.loader_threads)
    with closing(batches):
        for index, inputs, copied in batches:
            if copied is not None:
                stream = torch.cuda.current_stream(device)
                stream.wait_event(copied)
                for value in inputs.values():
                    value.record_stream(stream)
            yield index, inputs


def _flag(value: bool, device: torch.device) -> Tensor:
    return torch.full((), float(value), device=device)


class HostCopy:
    """Numbers on their way from the device to the CPU, which goes on meanwhile."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def wait(self) -> list[float]:
        """The numbers, once they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return list(self._values.tolist())


def _step(optimizer: torch.optim.Optimizer, rate: float, rejected: Tensor) -> None:
    """One step of a fused optimizer, which changes nothing where `rejected` is 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    # The fused form's own attributes, by which a GradScaler leaves out steps.
    optimizer.grad_scale, optimizer.found_inf = None, rejected  # type: ignore[attr-defined]
    optimizer.step()


def _run_callback(
    callback: Callback, step: int, distributed: DistributedModel, ema: PostHocEMA | None, metrics: MetricsLog
) -> None:
    """Call it on the main process, with the average in the plain network's place; without one, with the raw weights."""
    if distributed.sharded:  # the plain network is idle meanwhile, so it can take and keep the weights
        if ema is None:
            copy_weights(distributed.inner, distributed.plain)
        else:
            load_parameters(distributed.plain, {name: full_tensor(value) for name, value in ema.weights().items()})
    if not distributed.accelerator.is_main_process:
        return
    with nullcontext() if ema is None or distributed.sharded else ema.in_place_of(distributed.plain):
        distributed.plain.eval()
        values = callback.run(step)
        distributed.plain.train()
    if values:
        metrics.write(f"{callback.name}.jsonl", step, values)

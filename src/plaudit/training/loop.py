"""The training loop: objectives, loss guard, metrics, and the updates themselves."""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from torch import Tensor, nn

from plaudit.backbone.ema import (
    KEPT_LENGTHS,
    PostHocEMA,
    full_tensor,
    load_parameters,
    snapshot,
)
from plaudit.errors import ModelError, Preempted, RunError
from plaudit.machine import device_memory, peak_tflops
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress
from plaudit.storage import (
    load_tensors,
    save_tensors,
    to_json,
    write_atomically,
    write_json,
)
from plaudit.training.checkpoints import Writer, resume, save, save_snapshots
from plaudit.training.distributed import DistributedModel, RankSlice, copy_weights, distribute, rank_slice
from plaudit.training.gradients import compute_gradients
from plaudit.training.settings import EmaSettings, LoopSettings, TrainSettings
from plaudit.workers import Workers, cpu_workers

INJECTION_PREFIX = "score."
"""How the names of the score injection's parameters begin, in every backbone."""

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
    """AdamW. The score injection's parameters are a group of their own where their rate differs."""
    scale = settings.injection_lr_scale
    groups = [{"params": distributed.trainable, "lr_scale": 1.0}]
    if scale != 1:
        named = [(name, p) for name, p in distributed.inner.named_parameters() if p.requires_grad]
        injection = [p for name, p in named if name.startswith(INJECTION_PREFIX)]
        others = [p for name, p in named if not name.startswith(INJECTION_PREFIX)]
        groups = [{"params": others, "lr_scale": 1.0}, {"params": injection, "lr_scale": scale}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
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
        group["lr"] = rate * group["lr_scale"]
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

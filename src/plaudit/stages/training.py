"""The one training loop: every stage brings a network and an objective, and gets updates, EMA, checkpoints, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from plaudit.backbone.ema import PostHocEMA, load_parameters
from plaudit.backbone.sharding import whole
from plaudit.errors import Preempted, RunError
from plaudit.stages import checkpoints
from plaudit.stages.guard import LossGuard, StopRequest, save_failure
from plaudit.stages.metrics import MetricsLog
from plaudit.stages.objective import Inputs, Objective, prefetched
from plaudit.stages.parallel import Share, Spread, share_of, spread
from plaudit.stages.settings import LoopSettings, TrainSettings

Progress = Callable[[int, int], None]
"""Hears how many steps are done, of how many."""

DECAY = 0.1
PLAIN = LoopSettings()


@dataclass(frozen=True)
class Event:
    """Something to do every so many updates, on the main process, while the network that was given to `train` holds
    the running average that is deployed. run(step) returns numbers, which become a row of `<name>.jsonl`."""

    name: str
    every: int
    run: Callable[[int], dict[str, float]]


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of update `step` (from 0): linear warm-up, constant, x0.1 at each share named in `decay_at`."""
    passed = sum(step >= share * settings.steps for share in settings.decay_at)
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.learning_rate * warm * DECAY**passed


def train(
    network: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    loop: LoopSettings = PLAIN,
    events: Sequence[Event] = (),
    flops: int | None = None,
) -> PostHocEMA:
    """Train what requires a gradient of `network`, in place, for `settings.steps` updates; its running averages.

    Continues from the last checkpoint in `folder` and ends with the same weights as a run never interrupted: batches
    and noise depend on the update's index alone, and one update is of the same clips on any number of processes, all
    of which must call this. flops: the arithmetic of one clip's part of an update, for MFU.

    Raises RunError when the loss is lost (see `LossGuard`), with what it was lost on in `folder/failure`; Preempted
    after SIGTERM, with a checkpoint; ModelError for a damaged checkpoint.
    """
    share = share_of(settings.batch, settings.accumulate, accelerator.process_index, accelerator.num_processes)
    with ExitStack() as stack:
        over = stack.enter_context(spread(network, loop, accelerator))
        optimizer = _optimizer(over, settings)
        ema = PostHocEMA(over.inner)
        start = checkpoints.resume(folder, over, optimizer, ema)
        metrics = stack.enter_context(closing(MetricsLog(folder, settings, loop, accelerator, start, flops)))
        writer = stack.enter_context(checkpoints.Writer())
        stop = stack.enter_context(StopRequest())
        guard = LossGuard(loop.explosion)
        batches = stack.enter_context(closing(_batches(objective, share, settings, loop, start, accelerator.device)))
        over.wrapped.train()
        for step in range(start + 1, settings.steps + 1):
            rate = learning_rate(step - 1, settings)
            began = time.monotonic()
            parts = [next(batches) for _ in share.parts]
            waited = time.monotonic() - began
            own = _gradients(over, objective, parts, settings.clip)
            values, stopping = _agree(over, own, stop.heard)
            if objection := guard.objection(values):
                place = save_failure(folder, over, parts, {"step": step, "reason": objection, "values": values})
                raise RunError(f"{objection} at step {step}; see {place}, and lower the learning rate")
            _step(optimizer, rate)
            ema.update(over.inner, step)
            metrics.update(step, values, rate, waited)
            for event in events:
                if event.every and step % event.every == 0:
                    _happen(event, step, over, ema, metrics)
            if loop.snapshot_every and (step % loop.snapshot_every == 0 or step == settings.steps):
                checkpoints.save_snapshots(writer, folder, ema, accelerator.is_main_process)
            if stopping or (step % settings.checkpoint_every == 0 and step < settings.steps):
                checkpoints.save(writer, folder, step, over, optimizer, ema, loop.keep_checkpoints)
            progress(step, settings.steps)
            if stopping:
                writer.wait()
                raise Preempted(f"stopped by SIGTERM after update {step} of {settings.steps}; run it again to go on")
        over.wrapped.eval()
        if over.sharded:
            ema.gather()
    return ema


def _optimizer(over: Spread, settings: TrainSettings) -> torch.optim.AdamW:
    fused = over.accelerator.device.type == "cuda"
    return torch.optim.AdamW(
        over.trainable, settings.learning_rate, (0.9, 0.95), weight_decay=settings.weight_decay, fused=fused
    )


def _batches(
    objective: Objective, share: Share, settings: TrainSettings, loop: LoopSettings, start: int, device: torch.device
) -> Generator[tuple[int, Inputs]]:
    """(index, batch) of every batch that this process computes from update `start` on, on its device."""
    indices = (s * settings.accumulate + part for s in range(start, settings.steps) for part in share.parts)
    pinned = device.type == "cuda"

    def draw(index: int) -> Inputs:
        inputs = objective.draw(index, share.rows)
        return {name: value.pin_memory() for name, value in inputs.items()} if pinned else inputs

    with closing(prefetched(draw, indices, loop.prefetch, loop.readers)) as drawn:
        for index, inputs in drawn:
            yield index, {name: value.to(device, non_blocking=True) for name, value in inputs.items()}


def _gradients(
    over: Spread, objective: Objective, parts: list[tuple[int, Inputs]], largest: float
) -> dict[str, Tensor]:
    """Gradients of the mean loss over `parts`, clipped; this process's mean of each named value, and the norm."""
    over.inner.zero_grad(set_to_none=True)
    found = []
    for number, (_, inputs) in enumerate(parts, start=1):
        with over.unsynchronized(number < len(parts)):
            with over.accelerator.autocast():
                values = objective.loss(over.wrapped, inputs)
            over.accelerator.backward(values["loss"] / len(parts))
        found.append({name: value.detach().float() for name, value in values.items()})
    norm = over.clip(largest)
    return {name: torch.stack([v[name] for v in found]).mean() for name in found[0]} | {"gradient_norm": norm}


def _agree(over: Spread, values: dict[str, Tensor], stop: bool) -> tuple[dict[str, float], bool]:
    """Means over all processes, and whether any of them was asked to stop: all go on or stop together."""
    vector = torch.stack([*values.values(), torch.tensor(float(stop), device=over.accelerator.device)])
    *means, stops = over.mean(vector).tolist()
    return dict(zip(values, means, strict=True)), stops > 0


def _step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _happen(event: Event, step: int, over: Spread, ema: PostHocEMA, metrics: MetricsLog) -> None:
    """Let the main process do it, with the average in the plain network's place."""
    if over.sharded:  # the plain network lies idle meanwhile, so it can take the whole average and keep it
        averages = {name: whole(value) for name, value in ema.weights().items()}
        load_parameters(over.plain, averages)
    if not over.accelerator.is_main_process:
        return
    with nullcontext() if over.sharded else ema.in_place_of(over.plain):
        over.plain.eval()
        values = event.run(step)
        over.plain.train()
    if values:
        metrics.write(f"{event.name}.jsonl", step, values)

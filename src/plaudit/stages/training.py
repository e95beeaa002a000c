"""The one training loop: every stage brings a model and a loss, and gets updates, EMA, checkpoints and metrics."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from plaudit.assets import save_checkpoint, write_atomically
from plaudit.backbone.ema import PostHocEMA
from plaudit.errors import ModelError, RunError
from plaudit.stages.settings import TrainSettings

Progress = Callable[[int, int], None]
"""Hears how many steps are done, of how many."""

BatchLoss = Callable[[nn.Module, int], dict[str, Tensor]]
"""loss(network, index) -> named scalars, "loss" among them; must draw everything random from `index` alone."""

LOG_EVERY = 10
DECAY = 0.1


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of update `step` (from 0): linear warm-up, constant, x0.1 at each share named in `decay_at`."""
    passed = sum(step >= share * settings.steps for share in settings.decay_at)
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.learning_rate * warm * DECAY**passed


def train(
    network: nn.Module,
    loss: BatchLoss,
    settings: TrainSettings,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
) -> PostHocEMA:
    """Train `network` in place for `settings.steps` updates and return its running averages.

    Continues from `folder/checkpoint.pt` where there is one and ends with the same weights as a run never
    interrupted: batches and noise depend on the update's index alone. Writes `folder/metrics.jsonl`.
    Raises RunError when the loss stops being finite, ModelError for a damaged checkpoint.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, (0.9, 0.95), weight_decay=settings.weight_decay
    )
    ema = PostHocEMA(network)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = folder / "checkpoint.pt", folder / "metrics.jsonl"
    start = _resume(checkpoint, network, optimizer, ema)
    _forget_after(metrics, start)
    wrapped, optimizer = accelerator.prepare(network, optimizer)
    wrapped.train()
    window: list[dict[str, float]] = []
    began = time.monotonic()
    for step in range(start, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        values = _update(wrapped, loss, step, settings, optimizer, accelerator)
        if not math.isfinite(values["loss"]):
            raise RunError(f"the loss became {values['loss']} at step {step + 1} in {folder}; lower the learning rate")
        ema.update(network, step + 1)
        window.append(values)
        if accelerator.is_main_process and ((step + 1) % LOG_EVERY == 0 or step + 1 == settings.steps):
            row = {name: sum(v[name] for v in window) / len(window) for name in window[0]}
            speed = (step + 1 - start) * settings.batch * settings.accumulate / (time.monotonic() - began)
            rate = learning_rate(step, settings)
            _append(metrics, {"step": step + 1, **row, "learning_rate": rate, "clips_per_second": round(speed, 2)})
            window = []
        if accelerator.is_main_process and (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            _save(checkpoint, network, optimizer, ema, step + 1)
        progress(step + 1, settings.steps)
    network.eval()
    return ema


def _update(
    network: nn.Module,
    loss: BatchLoss,
    step: int,
    settings: TrainSettings,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> dict[str, float]:
    """One optimizer step over `accumulate` batches; the mean of each named value, and the gradient norm."""
    totals: dict[str, float] = {}
    for part in range(settings.accumulate):
        index = (step * settings.accumulate + part) * accelerator.num_processes + accelerator.process_index
        with accelerator.autocast():
            values = loss(network, index)
        accelerator.backward(values["loss"] / settings.accumulate)
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach()) / settings.accumulate
    norm = accelerator.clip_grad_norm_(network.parameters(), settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**totals, "gradient_norm": float(norm)}


def _save(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, ema: PostHocEMA, step: int) -> None:
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
    }
    save_checkpoint(path, state)


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, ema: PostHocEMA) -> int:
    """Fill everything from the checkpoint and return its step; 0 where there is none."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        return int(state["step"])
    except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # PyTorch's own words on a file that is none of its own advise to run the code in it.
        foreign = isinstance(error, pickle.UnpicklingError) or not str(error)
        reason = "it is not a checkpoint" if foreign else str(error).splitlines()[0]
        raise ModelError(f"{path} is damaged ({reason}); delete it to train this stage from its start") from None


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the rows that a killed run logged after its last checkpoint: they will be logged again."""
    if metrics.exists():
        rows = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
        write_atomically(metrics, "".join(kept))


def _append(metrics: Path, row: dict[str, float]) -> None:
    with metrics.open("a") as file:
        file.write(json.dumps(row) + "\n")

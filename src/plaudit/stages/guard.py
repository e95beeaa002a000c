"""What stops training before its end: a loss that is lost, and a signal that asks for it."""

from __future__ import annotations

import math
import shutil
import signal
import statistics
import threading
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from plaudit.assets import load_tensors, save_tensors, write_json
from plaudit.backbone.ema import load_parameters
from plaudit.backbone.sharding import snapshot
from plaudit.errors import ModelError
from plaudit.stages.objective import Inputs, Objective
from plaudit.stages.parallel import Spread

FAILURE = "failure"

RECENT, ENOUGH = 50, 10
"""Losses that the median is of, and how many it takes to have one (ours)."""


class LossGuard:
    """Says when a loss or a gradient is lost: not finite, or `explosion` times the median of recent losses."""

    def __init__(self, explosion: float) -> None:
        self._explosion = explosion
        self._recent: deque[float] = deque(maxlen=RECENT)

    def objection(self, values: dict[str, float]) -> str | None:
        """What is wrong with an update of these values, of which "loss" and "gradient_norm" are looked at."""
        loss, norm = values["loss"], values["gradient_norm"]
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm became {norm}"
        if len(self._recent) >= ENOUGH and loss > self._explosion * abs(usual := statistics.median(self._recent)):
            return f"the loss jumped from about {usual:.4g} to {loss:.4g}"
        self._recent.append(loss)
        return None


def save_failure(folder: Path, spread: Spread, batches: list[tuple[int, Inputs]], facts: dict[str, Any]) -> Path:
    """Keep what an update failed on, in `folder/failure`: the weights before it, and each process's batches.

    Every process must call it. The optimizer has not stepped.
    """
    place, accelerator = folder / FAILURE, spread.accelerator
    if accelerator.is_main_process:
        shutil.rmtree(place, ignore_errors=True)
    weights = {name: p for name, p in spread.inner.named_parameters() if p.requires_grad}
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

    `network` gets the weights from before the update. Add `torch.autograd.set_detect_anomaly(True)`, hooks or prints
    around it to see where they are lost.
    """
    place = folder / FAILURE
    if not (place / "failure.json").exists():
        raise ModelError(f"{place} holds no failure; name the folder of a training pass that stopped")
    load_parameters(network, load_tensors(place / "weights.safetensors"))
    found = {}
    for path in sorted(place.glob("batch-*.safetensors")):
        values = objective.loss(network, load_tensors(path))
        found[path.stem] = {name: value.item() for name, value in values.items()}
    return found


class StopRequest:
    """Hears SIGTERM while its block lasts, so that the loop can stop between updates. Hears nothing outside the main
    thread, where signals can't be heard."""

    def __init__(self) -> None:
        self.heard = False

    def __enter__(self) -> StopRequest:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = True

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

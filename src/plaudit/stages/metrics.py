"""What a training pass says of itself: rows of metrics, and the trackers that are asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from plaudit.assets import to_json, write_atomically
from plaudit.errors import RunError
from plaudit.machine import device_memory, peak_tflops
from plaudit.stages.settings import LoopSettings, TrainSettings

METRICS = "metrics.jsonl"

LOG_EVERY = 10


class MetricsLog:
    """Means over the last `LOG_EVERY` updates as rows of `metrics.jsonl`, written by the main process alone.

    Beside what the loss names, a row has the gradient's norm, the learning rate, clips a second over all processes,
    the share of the time that was spent waiting for data, memory in GB (of the GPU, or of the process), and, where the
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
        self._path, self._settings, self._accelerator = folder / METRICS, settings, accelerator
        peak = loop.peak_tflops or peak_tflops(accelerator.device)
        self._flops_share = flops / (peak * 1e12 * accelerator.num_processes) if flops and peak else None
        self._trackers = _trackers(folder, loop) if accelerator.is_main_process else []
        self._window: list[dict[str, float]] = []
        self._waited = 0.0
        self._began = time.monotonic()
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.jsonl"):
                _forget_after(path, start)

    def update(self, step: int, values: dict[str, float], rate: float, waited: float) -> None:
        """Take in update `step` (from 1), for whose data the loop waited so many seconds."""
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
        if self._flops_share is not None:
            row["mfu"] = round(speed * self._flops_share, 4)
        self.write(METRICS, step, row)
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
    made = []
    for name in loop.trackers:
        kind = LOGGER_TYPE_TO_CLASS[name]
        try:
            # A run's name in both: the folder of the run and those within it that lead to this pass.
            if kind.requires_logging_directory:
                tracker = kind(folder.name, logging_dir=folder / name)
            else:
                tracker = kind("plaudit", name="/".join(folder.parts[-3:]), dir=folder)
            tracker.start()
        except ImportError:
            raise RunError(f"tracker {name} is not installed; pip install 'plaudit[track]'") from None
        made.append(tracker)
    return made


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows that a killed run logged after its last checkpoint: they will be logged again."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    write_atomically(path, "".join(to_json(row) + "\n" for row in rows if row["step"] <= step))

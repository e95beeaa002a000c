"""Training jobs that tests run here, or in other processes: `torchrun ... -m tests.stages.worker JOBS.json`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator

from plaudit.corpus.shards import ShardSet
from plaudit.stages.crpo import CrpoObjective, CrpoSettings
from plaudit.stages.sft import FlowTrainSettings, PreferenceTrainSettings, SftObjective
from plaudit.storage import save_tensors
from plaudit.training.data import Source, TrainingSet
from plaudit.training.distributed import accelerator_for
from plaudit.training.loop import Callback, Objective, train
from plaudit.training.lora import add_adapters
from plaudit.training.settings import LoopSettings
from tests.backbone.tiny import tiny_model, wake


@dataclass
class Job:
    """One training pass of the tiny model on the noise in `shards`; leaves its weights and averages in `folder`."""

    folder: str
    shards: str
    stage: str = "sft"
    settings: dict[str, Any] | None = None
    loop: dict[str, Any] | None = None
    pause: float = 0.0


def run_job(job: Job, accelerator: Accelerator) -> None:
    model, folder = wake(tiny_model("global_adaln", seed=3)), Path(job.folder)
    data = ShardSet(job.shards, verify=False)
    rows = data.rows("train")
    plain = {"steps": 12, "learning_rate": 1e-3, "batch": 8, "checkpoint_every": 5, "seed": 4}
    settings = FlowTrainSettings.model_validate(plain | (job.settings or {}))
    if settings.lora is not None:
        add_adapters(model, settings.lora, settings.seed)
    objective: Objective
    if job.stage == "sft":
        sources = [Source(data, rows, data.rewards[rows]), Source(data, rows[:4], data.rewards[rows[:4]], 2.5)]
        objective = SftObjective(model, TrainingSet(sources, 4), settings)
    else:
        reference = wake(tiny_model("global_adaln", seed=3)).requires_grad_(False)
        halves = [Source(data, part, data.rewards[part]) for part in (rows[:16], rows[16:32])]
        tuning = PreferenceTrainSettings.model_validate(settings.model_dump())
        objective = CrpoObjective(model, reference, *halves, CrpoSettings(beta=20, train=tuning))

    def progress(done: int, total: int) -> None:
        print("update", done, flush=True)
        time.sleep(job.pause)

    callbacks = [Callback("mean", 6, lambda step: {"mean": float(model.final.out.weight.detach().mean())})]
    ema = train(model, objective, settings, folder, accelerator, progress, LoopSettings(**(job.loop or {})), callbacks)
    if accelerator.is_main_process:
        save_tensors(folder / "weights.safetensors", dict(model.named_parameters()))
        save_tensors(folder / "averages.safetensors", ema.weights())


if __name__ == "__main__":
    accelerator = accelerator_for("no")
    for values in json.loads(Path(sys.argv[1]).read_text()):
        run_job(Job(**values), accelerator)
    if dist.is_initialized():
        dist.destroy_process_group()

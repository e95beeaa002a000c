"""The training loop of synthetic weights: autocast, warm-up and cosine decay, resume, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.errors import ModelError
from plaudit.storage import checkpoint_damage, save_checkpoint, to_json


@dataclass(frozen=True)
class FitSettings:
    """Settings of the loop. `learning_rate` is the peak, reached after `warmup` steps."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    checkpoint_every: int = 200


def cosine_rate(step: int, settings: FitSettings) -> float:
    """The learning rate at `step` (from 0): linear warm-up, then half a cosine down to 2 % of the peak."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def fit(
    module: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    settings: FitSettings,
    folder: Path,
    log: Callable[[str], None] = print,
    export: Callable[[], None] | None = None,
) -> None:
    """Train `module` in place, resuming from `folder/checkpoint.pt` if it exists.

    losses(step) returns named scalars, of which "loss" is minimized; its batch must depend on `step` only, so that a
    resumed run has the same batches. The forward pass runs in bfloat16 autocast. `export` is called at every
    checkpoint, so that a usable model exists before training ends. Appends to `folder/metrics.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        module.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
    )
    checkpoint, start = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        if (damage := checkpoint_damage(checkpoint)) is not None:
            raise ModelError(f"{checkpoint} is damaged ({damage}); delete it to train from the start")
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    started = time.monotonic()
    for step in range(start, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, settings)
        with torch.autocast("cpu", torch.bfloat16):
            values = losses(step)
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        nn.utils.clip_grad_norm_(module.parameters(), settings.max_grad_norm)
        optimizer.step()
        if (step + 1) % 20 == 0:
            row = {"step": step + 1, **{name: float(v.detach()) for name, v in values.items()}}
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(to_json(row) + "\n")
            left = (time.monotonic() - started) / (step + 1 - start) * (settings.steps - step - 1)
            log("  ".join(f"{k} {v:.4g}" for k, v in row.items()) + f"  ({left / 60:.1f} min left)")
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_checkpoint(checkpoint, state)
            if export is not None:
                export()

"""A model folder with another running average of its training, made afterwards from the snapshots beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from plaudit import hub
from plaudit.assets import save_module
from plaudit.backbone.ema import Snapshot, load_parameters, reconstruct
from plaudit.errors import ModelError
from plaudit.generate.model import read_model_config
from plaudit.stages.checkpoints import SNAPSHOTS


def average_folder(folder: Path, sigma_rel: float, output: Path, step: int | None = None) -> dict[str, Any]:
    """Write `output`: the model in `folder` with the average of length `sigma_rel` at `step` (the last by default).

    Returns what its `made` says of the average. The snapshots are mapped, not loaded: memory is that of one model.
    ModelError where there are no snapshots, they are too few, or `output` is there already.
    """
    if output.exists():
        raise ModelError(f"{output} exists already; name a new folder")
    config = read_model_config(folder)
    paths = sorted((folder / SNAPSHOTS).glob("*.safetensors"))
    if not paths:
        others = sorted({str(path.parent) for path in folder.glob(f"**/{SNAPSHOTS}")})
        hint = f"there are some in {', '.join(others)}" if others else "set loop.snapshot_every and train it again"
        raise ModelError(f"{folder} holds no snapshots; {hint}")
    snapshots = [Snapshot.load(path) for path in paths]
    weights = reconstruct(snapshots, sigma_rel, step)
    backbone = hub.load_backbone(folder, config.backbone)
    load_parameters(backbone, weights)
    facts = {"sigma_rel": sigma_rel, "step": step or max(s.step for s in snapshots), "snapshots": len(snapshots)}
    config = replace(config, made=config.made | {"ema": facts})
    save_module(output, backbone, config.to_dict())
    return facts

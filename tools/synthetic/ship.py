"""From a finished run to the weights that the package ships."""

from __future__ import annotations

from pathlib import Path

import torch

from plaudit.errors import RunError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.recipe import load_recipe
from plaudit.storage import load_tensors, read_json, save_tensors, write_json


def ship(run: Path, stage: str | None = None, weights: Path = SHIPPED_WEIGHTS) -> dict[str, Path]:
    """Copy the run's reward and the model of `stage` (by default its last) into `weights`, in float16; their folders.

    Raises RunError where the run did not train both, is not finished, or has no such stage.
    """
    recipe = load_recipe(str(run / "recipe.yaml"))
    if recipe.reward.kind != "train" or not (run / "report" / "done.json").is_file():
        raise RunError(f"{run} trained no reward or has no report yet; finish a synthetic run first")
    trained = recipe.model_stages
    if stage is not None and stage not in trained:
        raise RunError(f"{run} has no stage {stage!r}; its stages are {', '.join(trained)}")
    sources = {"reward": run / "reward", "model": run / (stage or trained[-1])}
    for name, source in sources.items():
        tensors = load_tensors(source / "model.safetensors")
        halved = {key: t.to(torch.float16) if t.is_floating_point() else t for key, t in tensors.items()}
        save_tensors(weights / name / "model.safetensors", halved)
        write_json(weights / name / "config.json", read_json(source / "config.json"))
    return {name: weights / name for name in sources}

"""From a finished run to the weights that the package ships."""

from __future__ import annotations

from pathlib import Path

import torch

from plaudit.assets import EMBEDDED, load_tensors, read_json, save_tensors, write_json
from plaudit.chain.results import stages_of
from plaudit.errors import RunError
from plaudit.recipe import load_recipe


def ship(run: Path, weights: Path = EMBEDDED) -> dict[str, Path]:
    """Copy the run's reward and its last stage's model into `weights`, in float16; what lies where now.

    Raises RunError where the run did not train both, or is not finished.
    """
    recipe = load_recipe(str(run / "recipe.yaml"))
    if recipe.reward.kind != "train" or not (run / "report" / "done.json").is_file():
        raise RunError(f"{run} has no reward of its own or no report yet; finish an embedded run first")
    sources = {"reward": run / "reward", "model": run / stages_of(recipe)[-1]}
    for name, source in sources.items():
        tensors = load_tensors(source / "model.safetensors")
        halved = {key: t.to(torch.float16) if t.is_floating_point() else t for key, t in tensors.items()}
        save_tensors(weights / name / "model.safetensors", halved)
        write_json(weights / name / "config.json", read_json(source / "config.json"))
    return {name: weights / name for name in sources}

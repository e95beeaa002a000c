"""From a finished run to the weights that the package ships."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from plaudit.errors import RunError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.recipe import load_recipe
from plaudit.storage import load_tensors, quantized, read_json, save_tensors, write_json


def ship(run: Path, stage: str | None = None, weights: Path = SHIPPED_WEIGHTS) -> dict[str, Path]:
    """Copy the run's reward, in float16, and the model of `stage` (by default its last), in int8, into `weights`; their
    folders.

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
        save_tensors(weights / name / "model.safetensors", (quantized if name == "model" else _halved)(tensors))
        write_json(weights / name / "config.json", read_json(source / "config.json"))
    return {name: weights / name for name in sources}


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}

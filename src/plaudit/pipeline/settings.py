"""The settings of a recipe as steps take them: flat, by name, and with paths that hold wherever the shell is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit import loading
from plaudit.recipe import Recipe
from plaudit.registry import absolute_name

SHELVES = (loading.CODECS, loading.TEXT_ENCODERS, loading.CLAPS, loading.AUDIO_ENCODERS)
KNOWN = {*loading.MODELS, *loading.REWARDS.builtin, *(name for shelf in SHELVES for name in shelf.builtin)}
"""Names that are never a folder's."""


def located(recipe: Recipe) -> Recipe:
    """The recipe with every path in it absolute, so that its run folder can be used from any other folder."""
    corpus, models = recipe.corpus, recipe.models
    found: dict[str, Any] = {name: _absolute(getattr(corpus, name)) for name in ("folder", "score_table")}
    found["kind"] = absolute_name(corpus.kind)
    if corpus.table is not None and corpus.table.exists():  # else it is a name inside the folder
        found["table"] = corpus.table.absolute()
    changed: dict[str, Any] = {
        "corpus": corpus.model_copy(update=found),
        "models": models.model_copy(update={name: _named(value) for name, value in models.model_dump().items()}),
        "reward": recipe.reward.model_copy(update={"name": _named(recipe.reward.name)}),
        "backbone": recipe.backbone.model_copy(update={"start_from": _named(recipe.backbone.start_from)}),
    }
    changed["stages"] = tuple(
        stage.model_copy(update={n: v.absolute() for n, v in stage.__dict__.items() if isinstance(v, Path)})
        for stage in recipe.stages
    )
    return recipe.model_copy(update=changed)


def leaves(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted name, as in `--set`, stages by theirs; a section that is left out is None."""
    values = recipe.model_dump(mode="json")
    return _flat(values | {"stages": {stage.pop("name"): stage for stage in values["stages"]}}, "")


def picked(settings: dict[str, Any], names: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of these names or in sections of these names."""
    return {key: value for key, value in settings.items() if _within(key, names) and not _within(key, without)}


def _within(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _named(name: str | None) -> str | None:
    """A part's name, or the absolute path of its file or folder."""
    if name is None or name in KNOWN or not (Path(name) / "config.json").is_file():
        return None if name is None else absolute_name(name)
    return str(Path(name).absolute())

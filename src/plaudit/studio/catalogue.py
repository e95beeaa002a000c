"""Models, rewards and recipes by name, read without PyTorch; names become what `plaudit.loading` takes.

A name is a shipped one, that of a fetched or imported model, RUN/STAGE of a run, that of an installed reward, or the id
of a reward trained in the studio. Never a path or code: whoever may generate may not run anything.
"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from plaudit.errors import ModelError
from plaudit.places import SHIPPED_MODELS, SHIPPED_REWARDS, SHIPPED_WEIGHTS, models_dir
from plaudit.studio.database import Database, RewardModel
from plaudit.studio.errors import NotFound
from plaudit.studio.files import beneath
from plaudit.studio.schemas import ModelInfo, PartName, RecipeInfo, RewardInfo
from plaudit.studio.settings import StudioSettings

RECIPES = SHIPPED_WEIGHTS.parent / "recipes"
REWARD_KINDS = ("tunejury", "clap", "sum")

_NAME = TypeAdapter(PartName)


def list_models(settings: StudioSettings) -> list[ModelInfo]:
    """Shipped, installed, and those of runs."""
    models = [_model(name, "shipped", folder) for name, folder in SHIPPED_MODELS.items()]
    models += [_model(folder.name, "installed", folder) for folder in _installed()]
    models += [_model(f"{folder.parent.name}/{folder.name}", "run", folder) for folder in _stages(settings)]
    return [model for model in models if model is not None]


def list_rewards(database: Database) -> list[RewardInfo]:
    """Shipped, installed, and those trained in the studio."""
    rewards = [RewardInfo(name=name, source="shipped") for name in SHIPPED_REWARDS]
    names = [folder.name for folder in _installed() if _config(folder).get("kind") in REWARD_KINDS]
    names += [point.name for point in entry_points(group="plaudit.rewards")]
    rewards += [RewardInfo(name=name, source="installed") for name in names if _is_name(name)]
    with database.reading() as session:
        rows = session.scalars(select(RewardModel).order_by(RewardModel.sequence.desc()))
        rewards += [
            RewardInfo(
                name=row.name, source="studio", id=row.id, job_id=row.job_id, metrics=row.metrics,
                created_at=row.created_at,
            )
            for row in rows
        ]  # fmt: skip
    return rewards


def list_recipes() -> list[RecipeInfo]:
    """The package's recipes, with the comments that they begin with."""
    recipes = []
    for path in sorted(RECIPES.glob("*.yaml")):
        lines = []
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        recipes.append(RecipeInfo(name=path.stem, description=" ".join(lines)))
    return recipes


def resolve_model(settings: StudioSettings, name: str) -> str:
    """What `plaudit.loading.load` takes for a model's name; NotFound where there is none."""
    if name in SHIPPED_MODELS:
        return name
    if _is_name(name):
        run, slash, stage = name.removeprefix("runs/").partition("/")
        folder = settings.runs_folder / run / stage if slash else None
        if folder is None:
            folder = next((one for one in _installed() if one.name == name), None)
        elif not beneath(settings.runs_folder, folder):
            folder = None
        if folder is not None and _model(name, "run", folder) is not None:
            return str(folder)
    raise NotFound(f"there is no model {name[:80]!r}; GET /models lists them")


def resolve_reward(settings: StudioSettings, database: Database, name: str) -> str:
    """What `plaudit.loading.load_reward` takes for a reward's name or id; NotFound where there is none."""
    if name in SHIPPED_REWARDS:
        return name
    with database.reading() as session:
        row = trained_reward(session, name)
    if row is not None:
        folder = settings.layout.root / row.path
        if not (folder / "config.json").is_file():
            raise NotFound(f"the folder of reward {row.name!r} is gone; train it again")
        return str(folder)
    if name in [reward.name for reward in list_rewards(database) if reward.source == "installed"]:
        return name
    raise NotFound(f"there is no reward {name[:80]!r}; GET /rewards lists them")


def trained_reward(session: Session, name: str) -> RewardModel | None:
    """The reward of this name or id that was trained in the studio last; None for one of elsewhere."""
    if name in SHIPPED_REWARDS:
        return None
    named = (RewardModel.id == name) | (RewardModel.name == name)
    return session.scalar(select(RewardModel).where(named).order_by(RewardModel.sequence.desc()))


def resolve_clap(name: str) -> str:
    """What `plaudit.loading.CLAPS` takes for a CLAP's name; NotFound where there is none."""
    known = ["synthetic", *(point.name for point in entry_points(group="plaudit.claps"))]
    known += [folder.name for folder in _installed() if _config(folder).get("kind") == "laion-clap"]
    if name in known:
        return name
    raise NotFound(f"there is no CLAP {name[:80]!r}; name synthetic or one that plaudit models list shows as fetched")


def _model(name: str, source: Literal["shipped", "installed", "run"], folder: Path) -> ModelInfo | None:
    """The model in a folder; None where it holds another kind, or nothing."""
    config = _config(folder)
    backbone, sampling = config.get("backbone"), config.get("sampling")
    if not isinstance(backbone, dict) or not isinstance(sampling, dict) or not _is_name(name):
        return None
    if not (folder / "model.safetensors").is_file():
        return None
    try:
        return ModelInfo(
            name=name, source=source, seconds=config.get("seconds", 0), licence=config.get("licence", ""),
            takes_score=backbone.get("injection", "none") != "none", steps=sampling.get("steps"),
            guidance=(sampling.get("guidance") or {}).get("weight"), score=sampling.get("score"),
            negative_prompt=sampling.get("negative_prompt"),
        )  # fmt: skip
    except ValidationError:
        return None


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _installed() -> list[Path]:
    try:
        return sorted(path.parent for path in models_dir().glob("*/config.json"))
    except (ModelError, OSError):
        return []


def _stages(settings: StudioSettings) -> list[Path]:
    try:
        return sorted(path.parent for path in settings.runs_folder.glob("*/*/model.safetensors"))
    except OSError:
        return []


def _is_name(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True

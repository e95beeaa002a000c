"""The stages of a recipe before they run: the numbers of each in words, and what it lacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from plaudit.pipeline.requirements import requirements_of_stage
from plaudit.recipe import Recipe
from plaudit.settings import Settings
from plaudit.stages import StageSettings
from plaudit.training.settings import TrainSettings

NAMES = ("kind", "name", "start_from")
"""Settings of a stage that are no numbers of it."""


@dataclass(frozen=True)
class StagePlan:
    """A stage, its settings in words, one line each, and the names of what it needs and is missing."""

    stage: str
    settings: list[str]
    lacks: list[str]


def stage_plans(recipe: Recipe) -> list[StagePlan]:
    """The plan of every stage, in order."""
    return [
        StagePlan(
            stage.name,
            in_words(stage),
            [one.name for one in requirements_of_stage(recipe, stage) if not one.here],
        )
        for stage in recipe.stages
    ]


def in_words(stage: StageSettings) -> list[str]:
    """The settings of a stage: its own in one line, then one line for each training pass."""
    values = {name: value for name, value in stage.__dict__.items() if name not in NAMES}
    passes = {name: value for name, value in values.items() if isinstance(value, TrainSettings)}
    own = ", ".join(
        f"{name} {_word(value)}" for name, value in values.items() if name not in passes and value is not None
    )
    return [*([own] if own else []), *(f"{name}: {pass_in_words(one)}" for name, one in passes.items())]


def pass_in_words(settings: TrainSettings) -> str:
    """Updates, rate, optimizer, what is dropped, and which weights are left, in that order."""
    clips = f"{settings.batch} x {settings.accumulate}" if settings.accumulate > 1 else f"{settings.batch}"
    parts = [f"{settings.steps:,} updates of {clips}", f"rate {settings.learning_rate:g}"]
    if settings.warmup:
        parts.append(f"warm-up {settings.warmup:,}")
    decays = [settings.warmup + math.ceil(fraction * settings.steps) for fraction in settings.decay_at]
    if reached := [f"{step:,}" for step in decays if step < settings.steps]:
        parts.append(f"x0.1 at {' and '.join(reached)}")
    parts += [f"AdamW eps {settings.adam_eps:g}", f"weight decay {settings.weight_decay:g}"]
    parts.append(f"gradients up to {settings.max_grad_norm:g}")
    for name in ("score_dropout", "text_dropout"):
        if hasattr(settings, name):
            parts.append(f"{name} {getattr(settings, name):g}")
    if settings.lora is not None:
        parts.append(f"adapters of rank {settings.lora.rank}")
    average = (
        f"EMA {settings.ema.sigma_rel:g}" if settings.ema.decay is None else f"EMA of decay {settings.ema.decay:g}"
    )
    return ", ".join([*parts, "raw weights" if settings.weights == "raw" else average])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Settings):
        return f"({', '.join(f'{name} {_word(one)}' for name, one in value if one is not None)})"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

"""Runs as systems of a comparison: the clips of one stage with their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plaudit import loading
from plaudit.errors import EvaluationError, PlauditError
from plaudit.evaluate.compare.systems import ComparedClip, System, systems_in
from plaudit.evaluate.evaluator import StageScores
from plaudit.pipeline.results import stages_of
from plaudit.pipeline.steps import FINISHED
from plaudit.recipe import Recipe, load_recipe

RECIPE = "recipe.yaml"
METRICS = ("reward", "clap", "concepts", "utility")
"""Values that a stage's scores have for each clip."""


def systems_at(selector: str) -> list[System]:
    """The systems that a selector names: a run's last stage, its stage as RUN:STAGE, an evaluation, or a table.

    EvaluationError in one line where there are none.
    """
    path = Path(selector)
    if (path / RECIPE).is_file():
        return [run_system(path, None)]
    run, _, stage = selector.rpartition(":")
    if run and not path.exists() and (Path(run) / RECIPE).is_file():
        return [run_system(Path(run), stage)]
    return systems_in(selector)


def run_system(run: Path, stage: str | None) -> System:
    """The clips of a run's stage, by default of its last one that leaves a model, with the scores that it gave them."""
    recipe = load_recipe(str(run / RECIPE))
    stages = [*stages_of(recipe), FINISHED]
    stage = recipe.model_stages[-1] if stage is None else stage
    if stage not in stages:
        raise EvaluationError(f"{run} has no stage {stage!r}; it has {', '.join(stages)}")
    if not (run / f"scores-{stage}" / "scores.json").is_file():
        scored = [name for name in stages if (run / f"scores-{name}" / "scores.json").is_file()]
        others = f"; compare {run}:{scored[-1]}, or" if scored else ";"
        raise EvaluationError(f"{run} has no scores of its stage {stage} yet{others} continue it with plaudit run")
    scores = StageScores.load(run / f"scores-{stage}")
    values = {name: found for name in METRICS if (found := getattr(scores, name)) is not None}
    clips = [
        ComparedClip(
            line=row + 1,
            id=f"{row:04d}",
            prompt=prompt,
            seed="",
            file=run / f"clips-{stage}" / f"{row:04d}.wav",
            values={name: float(found[row]) for name, found in values.items() if not np.isnan(found[row])},
            error="",
        )
        for row, prompt in enumerate(scores.prompts)
    ]
    name = f"{run.resolve().name}:{stage}"
    return System(name, run / f"scores-{stage}", clips, list(values), [], f"{run}:{stage}", _models(run, recipe))


def _models(run: Path, recipe: Recipe) -> dict[str, str]:
    """What the run's rewards and CLAP scores are by."""
    found = {"clap": loading.CLAPS.identity(recipe.models.clap)}
    try:
        reward = loading.load_reward(str(run / "reward") if recipe.reward.kind == "train" else recipe.reward.name)
        found["reward"] = reward.identity  # type: ignore[attr-defined]
    except (AttributeError, PlauditError):  # a reward that is no longer here cannot be told from another
        pass
    return found

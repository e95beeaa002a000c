"""Runs as systems of a comparison: the clips of one stage with their values."""

from __future__ import annotations

from pathlib import Path

from plaudit import loading
from plaudit.errors import EvaluationError, PlauditError
from plaudit.evaluate.systems import System, system_of_values, systems_in
from plaudit.evaluate.values import VALUES, Values
from plaudit.pipeline.results import stages_of
from plaudit.pipeline.steps import FINISHED
from plaudit.recipe import Recipe, load_recipe

RECIPE = "recipe.yaml"


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
    """The clips of a run's stage, by default the last that trains a model, with their values."""
    recipe = load_recipe(str(run / RECIPE))
    stages = [*stages_of(recipe), FINISHED]
    stage = recipe.model_stages[-1] if stage is None else stage
    if stage not in stages:
        raise EvaluationError(f"{run} has no stage {stage!r}; it has {', '.join(stages)}")
    folder = run / f"values-{stage}"
    if not (folder / VALUES).is_file():
        evaluated = [name for name in stages if (run / f"values-{name}" / VALUES).is_file()]
        others = f"; compare {run}:{evaluated[-1]}, or" if evaluated else ";"
        raise EvaluationError(f"{run} has no values of its stage {stage} yet{others} continue it with plaudit run")
    name = f"{run.resolve().name}:{stage}"
    return system_of_values(Values.read(folder), name, folder, f"{run}:{stage}", _models(run, recipe))


def _models(run: Path, recipe: Recipe) -> dict[str, str]:
    """The identities of the models behind rewards and CLAP scores."""
    identities = {"clap": loading.CLAPS.identity(recipe.models.clap)}
    try:
        reward = loading.load_reward(str(run / "reward") if recipe.reward.kind == "train" else recipe.reward.name)
        identities["reward"] = reward.identity  # type: ignore[attr-defined]
    except (AttributeError, PlauditError):  # a reward that is gone has no identity
        pass
    return identities

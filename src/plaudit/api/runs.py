"""`run`: a recipe, from data to a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from plaudit.api.options import Device, build_settings
from plaudit.reporting import Reporter, WarningReporter
from plaudit.settings import Settings, option

if TYPE_CHECKING:
    from plaudit.pipeline.runner import Approve
    from plaudit.recipe import Recipe


class RunSettings(Settings):
    """Settings of `run`."""

    output: Path | None = option(None, "-o", "--output", help="Run folder. Default: runs/<recipe name>.")
    changes: tuple[str, ...] = option(
        (), "--set", help="Change a setting of the recipe, e.g. --set stages.crpo.beta=500. Repeatable."
    )
    source: Path | None = option(
        None, "--from", help="A run to start from; steps with the same inputs are shared. Needs -o."
    )
    only: str = option("report", "--only", help="Run only this step, e.g. sft, and those it needs.")
    device: Device = "auto"

    @model_validator(mode="after")
    def _source_is_another_run(self) -> RunSettings:
        if self.source is not None and self.output is None:
            raise ValueError("--from needs -o: the new run's folder")
        return self

    def load_recipe(self, recipe: str | Path | Recipe | None = None) -> Recipe:
        """The recipe with the changes; None stands for that of `source`."""
        from plaudit.errors import RecipeError, RunError
        from plaudit.recipe import Recipe, load_recipe

        if isinstance(recipe, Recipe):
            if self.changes:
                raise RecipeError("changes are for a recipe by its name or file; change the Recipe itself")
            return recipe
        if recipe is None:
            if self.source is None:
                raise RecipeError("name a recipe, or a run with --from")
            if not (self.source / "recipe.yaml").is_file():
                raise RunError(f"{self.source} is not a run folder; give --from a folder that `plaudit run` made")
            recipe = self.source / "recipe.yaml"
        return load_recipe(str(recipe), list(self.changes))

    def folder(self, recipe: Recipe) -> Path:
        """The run folder."""
        return self.output or Path("runs") / recipe.name


def run(
    recipe: str | Path | Recipe | None = None,
    settings: RunSettings | None = None,
    *,
    approve: Approve | None = None,
    reporter: Reporter | None = None,
    **changes: Any,
) -> Path:
    """Run a recipe up to a step, by default the report, and return the step's folder.

    Steps that are done are skipped, and what was interrupted is continued. approve: called with the steps that other
    settings, code or data would replace; RunError where it does not approve, as by default.
    """
    from plaudit.pipeline.runner import nothing_replaced
    from plaudit.pipeline.steps import run_recipe

    settings = build_settings(RunSettings, settings, changes)
    loaded = settings.load_recipe(recipe)
    reporter, approve = reporter or WarningReporter(), approve or nothing_replaced
    folder = settings.folder(loaded)
    return run_recipe(loaded, folder, reporter, settings.only, approve, settings.source, settings.device)

"""The cross-load table: models trained under each injection, run in the forward pass of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from plaudit import loading
from plaudit.backbone.base import cross_load
from plaudit.backbone.injections import INJECTIONS
from plaudit.errors import RecipeError
from plaudit.evaluate.pages.sweep import CrossCell, CrossTable, cross_table
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.pipeline.results import evaluators_for
from plaudit.pipeline.runner import Approve, Given, RunContext, Step, nothing_replaced, run_chain
from plaudit.pipeline.steps import leaves, located, picked, required_steps, steps
from plaudit.pipeline.sweeps import Progress, SweepCell, SweepSetup, check_cell, fill_cells, read_cell, takes_score
from plaudit.recipe import Recipe
from plaudit.reporting import Reporter
from plaudit.stages.inputs import FrozenModels

SCORED = tuple(name for name in INJECTIONS.builtin if name != "none")
"""The injections that a score enters by."""

TABLE_STEP = "table"
"""The folder of the cells."""

KIND = "a sweep over injections"
"""What `run.json` calls such a folder."""


def check_injections(names: Sequence[str]) -> None:
    """RecipeError for a name that no injection has, or one given twice."""
    for name in names:
        if name not in SCORED:
            raise RecipeError(f"no injection {name!r}; a score enters by {', '.join(SCORED)}")
        if list(names).count(name) > 1:
            raise RecipeError(f"injection {name} is given twice; name each once")


def cross_load_models(
    trial: SweepSetup,
    models: dict[str, Path],
    injections: Sequence[str],
    folder: Path,
    *,
    sampling: Mapping[str, SamplingSettings],
    device: str = "auto",
    progress: Progress = lambda done, total: None,
) -> CrossTable:
    """Every model, by its label, in the forward pass of every injection; cells lie in `folder`/<label>/<injection>.

    sampling: by label. What an injection does not share with a model is as at initialization.
    """
    check_injections(injections)
    rows = [_row(label, model, injections, folder, sampling[label], device) for label, model in models.items()]
    for cell in (cell for row in rows for cell in row):
        check_cell(trial, cell)
    for place, row in enumerate(rows):
        _fill_row(trial, row, place * len(row), len(rows) * len(row), progress)
    natives = {label: read_model_config(model).backbone.injection for label, model in models.items()}
    return read_table(natives, injections, folder)


def read_table(natives: Mapping[str, str], injections: Sequence[str], folder: Path) -> CrossTable:
    """The table of cells that are there. natives: by label, the injection that the model was trained under."""
    return cross_table(
        [
            CrossCell(label, run, run == native, read_cell(folder / label / run))
            for label, native in natives.items()
            for run in injections
        ]
    )


def _fill_row(trial: SweepSetup, row: list[SweepCell], before: int, total: int, progress: Progress) -> None:
    fill_cells(trial, row, lambda done, _: progress(before + done, total))


def _row(
    label: str, model: Path, injections: Sequence[str], folder: Path, settings: SamplingSettings, device: str
) -> list[SweepCell]:
    takes_score(model, label)
    digest = loading.model_digest(model)
    return [
        SweepCell(
            folder / label / run, partial(_in_forward, model, run, device), settings, {"model": digest, "run": run}
        )
        for run in injections
    ]


def _in_forward(folder: Path, injection: str, device: str) -> TextToMusic:
    """A model whose weights run in the forward pass of another injection, or of their own."""
    model = loading.load(str(folder), device)
    if model.config.backbone.injection == injection:
        return model
    config = replace(model.config.backbone, injection=injection)
    backbone, _ = cross_load(model.backbone.state_dict(), config)
    backbone = backbone.to(loading.resolve_device(device)).eval()
    return TextToMusic(backbone, model.codec, model.text_encoder, replace(model.config, backbone=config))


def sweep_recipe(
    recipe: Recipe,
    injections: Sequence[str],
    folder: Path,
    reporter: Reporter,
    sets: tuple[str, ...] = (),
    approve: Approve = nothing_replaced,
) -> CrossTable:
    """Train the recipe's SFT once per injection in the run `folder`, on the same data, and fill the table of them.

    approve: asked before what was made from something else is replaced. RunError where it is not, and where the folder
    is that of something else.
    """
    check_injections(injections)
    recipe = located(recipe)
    chain: dict[str, Step] = {step.name: step for step in required_steps("reference", steps(recipe, folder))}
    trained: list[str] = []
    judges: tuple[str, ...] = ()
    given: Given = {}
    for injection in injections:
        own = steps(_under(recipe, injection), folder)
        name = _stage_name(recipe, injection)
        *data, step = required_steps(name, own)
        scores = next(one for one in own if one.name == f"scores-{name}")
        judges, given = tuple(need for need in scores.needs if not need.startswith("clips-")), scores.given
        chain |= {one.name: one for one in (*data, step)}
        trained.append(step.name)
    asked = ("sampling", "evaluate.prompts", "evaluate.seed", "sampling_batch", "corpus.kind", "corpus.seconds")
    settings = picked(leaves(recipe), asked) | {"injections": list(injections), "sets": list(sets)}
    models = {name: _stage_name(recipe, name) for name in injections}
    fill = partial(_fill, models=models, recipe=recipe, frozen=FrozenModels(**recipe.models.model_dump()), sets=sets)
    chain[TABLE_STEP] = Step(TABLE_STEP, settings, (*judges, *trained), fill, given)
    run_chain(recipe, folder, list(chain.values()), reporter, KIND, approve)
    return read_table({name: name for name in injections}, injections, folder / TABLE_STEP)


def _fill(
    run: RunContext, folder: Path, models: dict[str, str], recipe: Recipe, frozen: FrozenModels, sets: tuple[str, ...]
) -> None:
    panel = evaluators_for(run, recipe.corpus, frozen, recipe.reward, recipe.evaluate.prompts)
    setup = SweepSetup(panel, recipe.evaluate.seed, Execution(batch=recipe.sampling_batch), sets)
    with run.reporter.progress("cells") as advance:
        cross_load_models(
            setup,
            {name: run.path(stage) for name, stage in models.items()},
            list(models),
            folder,
            sampling=dict.fromkeys(models, recipe.sampling),
            device=str(run.accelerator.device),
            progress=advance,
        )


def _stage_name(recipe: Recipe, injection: str) -> str:
    return f"{recipe.model_stages[0]}-{injection}"


def _under(recipe: Recipe, injection: str) -> Recipe:
    """The recipe's first model stage alone, on a network with this injection, under a name of its own."""
    first = recipe.stage(recipe.model_stages[0]).model_copy(update={"name": _stage_name(recipe, injection)})
    backbone = recipe.backbone.model_copy(update={"injection": injection})
    return recipe.model_copy(update={"stages": (first,), "backbone": backbone})

"""The cross-load table: models trained under each injection, run in the forward pass of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from plaudit import loading
from plaudit.backbone.base import cross_load
from plaudit.backbone.injections import INJECTIONS
from plaudit.devices import resolve_device
from plaudit.errors import RecipeError
from plaudit.evaluate.evaluation import EvaluationSetup
from plaudit.evaluate.pages.sweep import CrossCell, CrossTable, cross_table
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic, read_model_config
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.pipeline.results import evaluation_setup
from plaudit.pipeline.runner import Approve, External, RunContext, Step, nothing_replaced, run_chain
from plaudit.pipeline.steps import leaves, located, picked, required_steps, steps
from plaudit.pipeline.sweeps import SweepCell, check_cell, fill_cells, read_cell, takes_score
from plaudit.recipe import Recipe
from plaudit.reporting import Progress, Reporter
from plaudit.stages.inputs import FrozenModels
from plaudit.training.distributed import process_device

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
    setup: EvaluationSetup,
    models: dict[str, Path],
    injections: Sequence[str],
    folder: Path,
    *,
    sampling: Mapping[str, SamplingSettings],
    execution: Execution = DEFAULT_EXECUTION,
    device: str | torch.device = "auto",
    progress: Progress = lambda done, total: None,
) -> CrossTable:
    """Every model, by its label, in the forward pass of every injection; cells lie in `folder`/<label>/<injection>.

    sampling: by label. What an injection does not share with a model is as at initialization.
    """
    check_injections(injections)
    rows = [_row(label, model, injections, folder, sampling[label], device) for label, model in models.items()]
    for cell in (cell for row in rows for cell in row):
        check_cell(setup, cell)
    for place, row in enumerate(rows):
        _fill_row(setup, row, execution, place * len(row), len(rows) * len(row), progress)
    natives = {label: read_model_config(model).backbone.injection for label, model in models.items()}
    return read_table(natives, injections, folder)


def read_table(natives: Mapping[str, str], injections: Sequence[str], folder: Path) -> CrossTable:
    """The table of the existing cells. natives: by label, the injection that the model was trained under."""
    return cross_table(
        [
            CrossCell(label, run, run == native, read_cell(folder / label / run))
            for label, native in natives.items()
            for run in injections
        ]
    )


def _fill_row(
    setup: EvaluationSetup, row: list[SweepCell], execution: Execution, before: int, total: int, progress: Progress
) -> None:
    fill_cells(setup, row, execution, lambda done, _: progress(before + done, total))


def _row(
    label: str, model: Path, injections: Sequence[str], folder: Path, settings: SamplingSettings,
    device: str | torch.device,
) -> list[SweepCell]:
    takes_score(model, label)
    digest = loading.model_digest(model)
    return [
        SweepCell(
            folder / label / run, partial(_in_forward, model, run, device), settings, {"model": digest, "run": run},
            label, f"injection={run}",
        )
        for run in injections
    ]  # fmt: skip


def _in_forward(folder: Path, injection: str, device: str | torch.device) -> TextToMusic:
    """A model in the forward pass of another injection, or its own."""
    model = loading.load(str(folder), device)
    if model.config.backbone.injection == injection:
        return model
    config = replace(model.config.backbone, injection=injection)
    backbone, _ = cross_load(model.backbone.state_dict(), config)
    backbone = backbone.to(resolve_device(device)).eval()
    return TextToMusic(backbone, model.codec, model.text_encoder, replace(model.config, backbone=config))


def sweep_recipe(
    recipe: Recipe,
    injections: Sequence[str],
    folder: Path,
    reporter: Reporter,
    metrics: tuple[str, ...] = (),
    approve: Approve = nothing_replaced,
    device: str = "auto",
) -> CrossTable:
    """Train the recipe's SFT once per injection in the run `folder`, on the same data, and fill the table of them.

    approve: called before stale results are replaced. RunError where it refuses, and where the folder belongs to
    something else.
    """
    check_injections(injections)
    recipe, process = located(recipe), process_device(device)
    chain: dict[str, Step] = {step.name: step for step in required_steps("reference", steps(recipe, folder, process))}
    trained: list[str] = []
    needs: tuple[str, ...] = ()
    external: External = {}
    for injection in injections:
        alone = steps(_under(recipe, injection), folder, process)
        name = _stage_name(recipe, injection)
        *data, step = required_steps(name, alone)
        values = next(one for one in alone if one.name == f"values-{name}")
        needs, external = tuple(need for need in values.needs if not need.startswith("clips-")), values.external
        chain |= {one.name: one for one in (*data, step)}
        trained.append(step.name)
    names = ("sampling", "evaluate.prompts", "evaluate.seed", "sampling_batch", "corpus.kind", "corpus.seconds")
    settings = picked(leaves(recipe), names) | {"injections": list(injections), "metrics": list(metrics)}
    models = {name: _stage_name(recipe, name) for name in injections}
    frozen = FrozenModels(**recipe.models.model_dump(), device=process)
    fill = partial(_fill, models=models, recipe=recipe, frozen=frozen, metrics=metrics)
    chain[TABLE_STEP] = Step(TABLE_STEP, settings, (*needs, *trained), fill, external)
    run_chain(recipe, folder, list(chain.values()), reporter, KIND, approve, device=process)
    return read_table({name: name for name in injections}, injections, folder / TABLE_STEP)


def _fill(
    run: RunContext, folder: Path, models: dict[str, str], recipe: Recipe, frozen: FrozenModels,
    metrics: tuple[str, ...],
) -> None:  # fmt: skip
    evaluate = recipe.evaluate
    setup = evaluation_setup(
        run, recipe.corpus, frozen, recipe.reward, evaluate, evaluate.prompts, evaluate.prompt_file
    )
    with run.reporter.progress("cells") as advance:
        cross_load_models(
            replace(setup, metrics=(*setup.metrics, *metrics)),
            {name: run.path(stage) for name, stage in models.items()},
            list(models),
            folder,
            sampling=dict.fromkeys(models, recipe.sampling),
            execution=Execution(batch=recipe.sampling_batch),
            device=run.accelerator.device,
            progress=advance,
        )


def _stage_name(recipe: Recipe, injection: str) -> str:
    return f"{recipe.model_stages[0]}-{injection}"


def _under(recipe: Recipe, injection: str) -> Recipe:
    """The recipe's first model stage alone, on a network with this injection, under a name of its own."""
    first = recipe.stage(recipe.model_stages[0]).model_copy(update={"name": _stage_name(recipe, injection)})
    backbone = recipe.backbone.model_copy(update={"injection": injection})
    return recipe.model_copy(update={"stages": (first,), "backbone": backbone})

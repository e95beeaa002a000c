"""`plaudit sweep`: one decision varied, everything else the same."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from plaudit.api import EvaluatorSettings, load_references, sampling_of
from plaudit.api.options import MODELS, REFERENCE
from plaudit.cli.console import CommandReporter, ConsoleReporter, Json, Yes, approval, say, show_json, show_table
from plaudit.cli.options import App, options
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.settings import Count, Seed, option

if TYPE_CHECKING:
    from plaudit.corpus.sources import HeldOut
    from plaudit.evaluate.embeddings import AudioEncoder, Reference
    from plaudit.evaluate.evaluation import EvaluationSetup
    from plaudit.evaluate.pages.sweep import CrossTable

app = App(help="Vary the conditioning score or the score injection, with everything else fixed.")

REFERENCE_SECONDS = 10.0
"""Length of the clean synthetic clips that models are compared with."""

UNUSED = (
    "sampling.negative_prompt",
    "sampling.precision",
    "sampling.piece.seconds",
    "sampling.piece.loop",
    "sampling.trajectory.mode",
    "sampling.trajectory.at",
    "sampling.trajectory.second_score",
    "execution.memory",
    "execution.compile",
)
"""Settings of sampling without an option here; --set reaches them in a sweep over scores."""


class SweepSettings(EvaluatorSettings):
    """Settings shared by all cells of a sweep."""

    prompts: Path | None = option(
        None, "--prompts", help="Prompts, one a line or a CSV. Default: held-out ones of the synthetic corpus."
    )
    count: Count = option(64, "-n", "--count", help="Number of prompts.")
    reference: Path | None = option(
        None, "--reference", panel=REFERENCE,
        help="Folder of reference audio, or an exported reference. Default: clean synthetic clips.",
    )  # fmt: skip
    reference_clips: Count = option(
        512, "--reference-clips", ge=2, help="Number of clean synthetic clips.", panel=REFERENCE
    )
    metrics: tuple[str, ...] = option(
        (), "--metric", help="A metric besides reward, CLAP score and Fréchet distance, as of plaudit evaluate.",
        panel=MODELS,
    )  # fmt: skip
    sampling: SamplingSettings = Field(SamplingSettings(), json_schema_extra={"default_of": "model"})
    seed: Seed = option(42, "--seed", help="Seed of the first prompt; prompt i has seed + i.")
    execution: Execution = Execution()
    output: Path = option(..., "-o", "--output", help="Folder for the cells, the page, JSON, CSV and SVG.")


@app.command()
@options(SweepSettings, skip=("sampling.score", *UNUSED), output=Path("sweep-score"))
def score(
    models: Annotated[list[str], typer.Argument(help="Names or model folders; LABEL=MODEL gives one a label.")],
    scores: Annotated[
        list[float] | None, typer.Option("--score", help="A conditioning score; repeat. Default: 0, 1, ..., 6.")
    ] = None,
    standardized: Annotated[
        bool,
        typer.Option(
            "--standardized",
            help="Scores are standard deviations from the mean of a model's training rewards. Default: -3, -2, ..., 3.",
        ),
    ] = False,
    *,
    settings: SweepSettings,
    json: Json = False,
) -> None:
    """Condition models on scores: reward, CLAP score and Fréchet distance at each, with intervals, in one figure.

    An interrupted sweep continues. Exits 1 if the clips of a cell cannot be measured.

    Example: plaudit sweep score runs/demo/sft runs/demo/crpo --score 0 --score 1 --score 2 -o sweep
    """
    from plaudit.evaluate.pages.sweep import sweep_row, write_scores
    from plaudit.evaluate.values import VALUES, Values
    from plaudit.generate.model import read_model_config
    from plaudit.pipeline.run_folder import open_run
    from plaudit.pipeline.sweeps import DEVIATIONS, SCORES, check_scores, sweep_scores, swept, swept_models, takes_score

    chosen = scores or list(DEVIATIONS if standardized else SCORES)
    check_scores(chosen)
    folders = swept_models(models)
    for label, folder in folders.items():
        takes_score(folder, label)
    sampling = {
        label: sampling_of(read_model_config(folder).sampling, settings.sampling) for label, folder in folders.items()
    }
    with open_run(settings.output, "a sweep over scores"):
        held_out = held_out_prompts(settings, next(iter(folders.values())))
        setup = evaluation_setup(settings, held_out)
        rows, failed = [], False
        for label, folder in folders.items():
            with ConsoleReporter().progress(f"cells of {label}") as advance:
                points = sweep_scores(
                    setup, folder, chosen, settings.output / label, label=label, sampling=sampling[label],
                    execution=settings.execution, standardized=standardized, device=settings.device, progress=advance,
                )  # fmt: skip
            failed |= any(isinstance(one, str) for one in points)
            rows.append(sweep_row(swept(label, chosen, points)))
        Values.collect(settings.output.glob("*/*/"), settings.output).write(settings.output / VALUES)
        x_label = "conditioning score" + (", in standard deviations" if standardized else "")
        record = setup_record(setup, folders, sampling)
        page = write_scores(rows, record, settings.output, x_label)
    _say_scores(rows, page, json)
    if failed:
        raise typer.Exit(1)


@app.command()
@options(SweepSettings, skip=UNUSED, output=Path("sweep-injections"))
def injections(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models trained under different injections; LABEL=MODEL gives a label.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe, instead of models; its SFT is trained once per injection.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of --recipe. Repeatable.")
    ] = None,
    injection: Annotated[
        list[str] | None, typer.Option("--injection", help="An injection to run under; repeat. Default: all built in.")
    ] = None,
    *,
    settings: SweepSettings,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Run models trained under one score injection in the forward pass of every other: the cross-load table.

    With --recipe, prompts, reference, reward, CLAP and sampling are the recipe's, to be changed with --set. An
    interrupted sweep continues. Exits 1 if the clips of a cell cannot be measured.

    Example: plaudit sweep injections --recipe smoke -o sweep
    """
    from plaudit.evaluate.metrics import metrics_named
    from plaudit.evaluate.pages.sweep import write_injections
    from plaudit.evaluate.values import VALUES, Values
    from plaudit.generate.model import read_model_config
    from plaudit.pipeline.injection_sweep import KIND, SCORED, check_injections, cross_load_models, sweep_recipe
    from plaudit.pipeline.run_folder import open_run
    from plaudit.pipeline.sweeps import swept_models
    from plaudit.recipe import load_recipe

    if (recipe is None) == (not models):
        raise typer.BadParameter("give one of: models, or --recipe")
    if changes and recipe is None:
        raise typer.BadParameter("--set changes a --recipe")
    run: Any = tuple(injection or SCORED)
    output = settings.output
    check_injections(run)
    metrics_named(settings.metrics)
    if recipe is not None:
        experiment = load_recipe(recipe, changes)
        reporter, approve = ConsoleReporter(), approval(yes)
        table = sweep_recipe(experiment, run, output, reporter, settings.metrics, approve, settings.device)
        record = {"recipe": experiment.model_dump(mode="json")}
        page = write_injections(table, record, output)
    else:
        folders = swept_models(models or [])
        with open_run(output, KIND):
            held_out = held_out_prompts(settings, next(iter(folders.values())))
            setup = evaluation_setup(settings, held_out)
            sampling = {
                label: sampling_of(read_model_config(f).sampling, settings.sampling) for label, f in folders.items()
            }
            with ConsoleReporter().progress("cells") as advance:
                table = cross_load_models(
                    setup, folders, run, output / "table", sampling=sampling, execution=settings.execution,
                    device=settings.device, progress=advance,
                )  # fmt: skip
            record = setup_record(setup, folders, sampling)
            page = write_injections(table, record, output)
    Values.collect(output.glob("table/*/*/"), output).write(output / VALUES)
    _say_injections(table, page, json)
    if any(cell.failed for cell in table.cells):
        raise typer.Exit(1)


def _say_scores(rows: list[Any], page: Path, json: bool) -> None:
    from plaudit.evaluate.pages.text import number, span, sweep_finding
    from plaudit.storage import read_json

    if json:
        show_json(read_json(page.with_name("sweep.json")))
        return
    shown = [
        (
            row.stage,
            f"{score:g}",
            *(f"{number(row.means[m][place].mean)} {span(row.means[m][place])}" for m in ("reward", "clap", "frechet")),
        )
        for row in rows
        for place, score in enumerate(row.scores)
    ]
    show_table(f"{rows[0].clips} prompts", ("model", "score", "reward", "CLAP score", "Fréchet distance"), shown)
    for line in [*(sweep_finding(row) for row in rows), f"Page: {page.resolve()}"]:
        say(line)


def _say_injections(table: CrossTable, page: Path, json: bool) -> None:
    from plaudit.evaluate.pages.sweep import injection_findings
    from plaudit.evaluate.pages.text import number, span
    from plaudit.storage import read_json

    if json:
        show_json(read_json(page.with_name("sweep.json")))
        return
    for metric, title in (("reward", "reward"), ("clap", "CLAP score"), ("frechet", "Fréchet distance")):
        rows = []
        for model in table.models:
            cells = [cell.means.get(metric) for cell in table.row(model)]
            rows.append((model, *("-" if c is None else f"{number(c.mean)}\n{span(c, 2)}" for c in cells)))
        show_table(f"{title}, trained by run, {table.clips} prompts", ("trained", *table.injections), rows)
    for line in [*injection_findings(table), f"Page: {page.resolve()}"]:
        say(line)


def held_out_prompts(settings: SweepSettings, model: Path) -> HeldOut:
    """The prompts of a file, or held-out ones of the synthetic corpus as long as the model's clips; at least two."""
    from plaudit.corpus.sources import HeldOut, synthetic_source
    from plaudit.errors import PromptError
    from plaudit.generate.model import read_model_config
    from plaudit.tables import read_prompts

    if settings.prompts is None:
        held_out = synthetic_source(read_model_config(model).seconds).held_out(settings.count)
    else:
        held_out = HeldOut(read_prompts(settings.prompts)[: settings.count])
    if len(held_out.prompts) < 2:
        raise PromptError("a sweep over one prompt has no intervals; give at least two prompts")
    return held_out


def evaluation_setup(settings: SweepSettings, held_out: HeldOut) -> EvaluationSetup:
    """The setup shared by all cells of a sweep; only prompts of the synthetic corpus have a known truth."""
    from dataclasses import replace

    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.evaluation import EvaluationSetup
    from plaudit.evaluate.metrics import metrics_named

    metrics_named(settings.metrics)
    truth_known, evaluators = held_out.truths is not None, settings.load()
    compared, source = _reference(settings, evaluators.clap)
    vocabulary, detector = evaluators.vocabulary, evaluators.detector
    if not truth_known and "concepts" not in settings.metrics:
        detector = None
    identity = {
        "reward": getattr(evaluators.reward, "identity", settings.reward),
        "clap": evaluators.clap.digest,
        "reference": source,
        "detector": None if detector is None or vocabulary is None else f"{detector.identity} {vocabulary.digest}",
    }
    utility = synthetic_source(REFERENCE_SECONDS).true_utility() if truth_known else None
    evaluators = replace(evaluators, detector=detector, utility=utility, identity=identity)
    return EvaluationSetup(held_out, evaluators, compared, settings.seed, settings.metrics)


def _reference(settings: SweepSettings, encoder: AudioEncoder) -> tuple[Reference, str]:
    """The reference, and its identity by content."""
    import numpy as np

    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.embeddings import content_digest, embed_recordings, reference_of
    from plaudit.pipeline.run_folder import fingerprint
    from plaudit.storage import write_atomically

    place, clips = settings.reference, settings.reference_clips
    if place is not None:
        references, _, contents = load_references(place, [encoder], None, CommandReporter())
        return references[0], fingerprint(contents=sorted(contents)) if contents else content_digest(place)
    corpus = synthetic_source(REFERENCE_SECONDS)
    kept = settings.output / f"reference-{clips}-{encoder.digest}.npy"
    if not kept.exists():
        with ConsoleReporter().progress("reference") as advance:
            embeddings = embed_recordings(encoder.embedder, *corpus.reference(clips), advance)
        packed = io.BytesIO()
        np.save(packed, embeddings)
        write_atomically(kept, packed.getvalue())
    return reference_of(encoder, np.load(kept), str(kept)), corpus.reference_label(clips)


def setup_record(
    setup: EvaluationSetup, models: dict[str, Path], sampling: dict[str, SamplingSettings]
) -> dict[str, Any]:
    """The record of a sweep's setup in its files."""
    return {
        "models": {label: str(folder) for label, folder in models.items()},
        "sampling": {label: settings.model_dump(mode="json") for label, settings in sampling.items()},
        "seed": setup.seed,
        "evaluators": dict(setup.evaluators.identity),
        "reference_clips": setup.reference.clips,
        "prompts": setup.held_out.prompts,
    }

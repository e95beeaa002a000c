"""`plaudit sweep`: one decision varied, everything else the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.cli.console import ConsoleReporter, Yes, approval, result_console, show_json, show_table
from plaudit.cli.options import App
from plaudit.cli.sweep_panel import held_out_prompts, settings_of, setup_of_options

if TYPE_CHECKING:
    from plaudit.evaluate.pages.sweep import CrossTable

app = App(help="Vary one decision and keep everything else: scores asked for, or score injections.")

RewardName = Annotated[
    str, typer.Option("--reward", help="A known or installed reward, a reward folder, or FILE.py:CLASS.")
]
ClapName = Annotated[str, typer.Option("--clap", help="The CLAP of the CLAP score and the zero-shot detector.")]
DetectorName = Annotated[str, typer.Option("--detector", help="Concept detector: probes, clap, or FILE.py:NAME.")]
VocabularyFile = Annotated[
    Path | None, typer.Option("--vocabulary", help="YAML of concepts to detect. Default: the package's.")
]
Prompts = Annotated[
    Path | None, typer.Option(help="Prompts, one a line or a CSV. Default: held-out ones of the synthetic world.")
]
PromptCount = Annotated[int, typer.Option("-n", "--count", min=1, help="How many prompts.")]
ReferenceAt = Annotated[
    Path | None,
    typer.Option(help="Folder of audio as it should sound, or an exported reference. Default: clean synthetic clips."),
]
ReferenceClips = Annotated[int, typer.Option("--reference-clips", min=2, help="How many clean synthetic clips.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="A metric besides reward, CLAP score and Frechet distance, as of plaudit evaluate."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Solver steps. Default: the model's own.")]
Weight = Annotated[float | None, typer.Option("--guidance", min=0, help="Guidance weight. Default: the model's own.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first prompt; prompt i has seed + i.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Clips sampled at once. Default: what memory allows.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print every number as JSON.")]


def _output(default: str) -> Any:
    return typer.Option(
        "-o", "--output", help="Folder for the cells, the page, JSON, CSV and SVG.", show_default=default
    )


@app.command()
def score(
    models: Annotated[list[str], typer.Argument(help="Names or model folders; LABEL=MODEL gives one a label.")],
    scores: Annotated[
        list[float] | None, typer.Option("--score", help="A score to ask for; repeat. Default: 0, 1, ..., 6.")
    ] = None,
    standardized: Annotated[
        bool,
        typer.Option(
            "--standardized",
            help="Scores are standard deviations from the mean of a model's training rewards. Default: -3, -2, ..., 3.",
        ),
    ] = False,
    prompts: Prompts = None,
    count: PromptCount = 64,
    reference: ReferenceAt = None,
    reference_clips: ReferenceClips = 512,
    reward: RewardName = "synthetic",
    clap: ClapName = "synthetic",
    detector: DetectorName = "probes",
    vocabulary: VocabularyFile = None,
    metric: Metrics = None,
    steps: Steps = None,
    guidance: Weight = None,
    seed: Seed = 42,
    batch: Batch = None,
    device: Device = "auto",
    output: Annotated[Path, _output("sweep-score")] = Path("sweep-score"),
    json: Json = False,
) -> None:
    """Ask models for scores: reward, CLAP score and Frechet distance at each, with intervals, all models in a figure.

    A sweep that was cut off goes on. Exits 1 where the clips of a cell cannot be judged; the others are judged.

    Example: plaudit sweep score runs/demo/sft runs/demo/crpo --score 0 --score 1 --score 2 -o sweep
    """
    from plaudit.evaluate.pages.sweep import sweep_row, write_scores
    from plaudit.evaluate.values import VALUES, Values
    from plaudit.generate.model import read_model_config
    from plaudit.generate.settings import Execution
    from plaudit.pipeline.run_folder import open_run
    from plaudit.pipeline.sweeps import DEVIATIONS, SCORES, check_scores, sweep_scores, swept, swept_models, takes_score

    asked = scores or list(DEVIATIONS if standardized else SCORES)
    check_scores(asked)
    folders = swept_models(models)
    for label, folder in folders.items():
        takes_score(folder, label)
    own = {label: read_model_config(f).sampling.changed(steps=steps, weight=guidance) for label, f in folders.items()}
    with open_run(output, "a sweep over scores"):
        held_out = held_out_prompts(prompts, count, next(iter(folders.values())))
        setup = setup_of_options(
            held_out, output, reference, reference_clips, reward, clap, detector, vocabulary, metric or [], seed
        )
        rows, failed = [], False
        for label, folder in folders.items():
            with ConsoleReporter().progress(f"cells of {label}") as advance:
                points = sweep_scores(
                    setup, folder, asked, output / label, label=label, sampling=own[label],
                    execution=Execution(batch=batch), standardized=standardized, device=device, progress=advance,
                )  # fmt: skip
            failed |= any(isinstance(one, str) for one in points)
            rows.append(sweep_row(swept(label, asked, points)))
        Values.collect(output.glob("*/*/"), output).write(output / VALUES)
        x_label = "conditioning score" + (", in standard deviations" if standardized else "")
        settings = settings_of(setup, folders, own)
        page = write_scores(rows, settings, output, x_label)
    _say_scores(rows, page, json)
    if failed:
        raise typer.Exit(1)


@app.command()
def injections(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models trained under different injections; LABEL=MODEL gives a label.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Instead of models: a recipe, whose SFT is trained once under each injection.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of --recipe. Repeatable.")
    ] = None,
    injection: Annotated[
        list[str] | None, typer.Option("--injection", help="An injection to run under; repeat. Default: all five.")
    ] = None,
    score: Annotated[float | None, typer.Option(help="Score to ask for. Default: the model's own.")] = None,
    prompts: Prompts = None,
    count: PromptCount = 64,
    reference: ReferenceAt = None,
    reference_clips: ReferenceClips = 512,
    reward: RewardName = "synthetic",
    clap: ClapName = "synthetic",
    detector: DetectorName = "probes",
    vocabulary: VocabularyFile = None,
    metric: Metrics = None,
    steps: Steps = None,
    guidance: Weight = None,
    seed: Seed = 42,
    batch: Batch = None,
    device: Device = "auto",
    output: Annotated[Path, _output("sweep-injections")] = Path("sweep-injections"),
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Run models trained under one score injection in the forward pass of every other: the cross-load table.

    With --recipe, prompts, reference, reward, CLAP and sampling are the recipe's, to be changed with --set. A sweep
    that was cut off goes on. Exits 1 where the clips of a cell cannot be judged.

    Example: plaudit sweep injections --recipe smoke -o sweep
    """
    from plaudit.evaluate.metrics import metrics_named
    from plaudit.evaluate.pages.sweep import write_injections
    from plaudit.evaluate.values import VALUES, Values
    from plaudit.generate.model import read_model_config
    from plaudit.generate.settings import Execution
    from plaudit.pipeline.injection_sweep import KIND, SCORED, check_injections, cross_load_models, sweep_recipe
    from plaudit.pipeline.run_folder import open_run
    from plaudit.pipeline.sweeps import swept_models
    from plaudit.recipe import load_recipe

    if (recipe is None) == (not models):
        raise typer.BadParameter("give one of: models, or --recipe")
    if changes and recipe is None:
        raise typer.BadParameter("--set changes a --recipe")
    run: Any = tuple(injection or SCORED)
    check_injections(run)
    metrics_named(metric or [])
    if recipe is not None:
        experiment = load_recipe(recipe, changes)
        table = sweep_recipe(experiment, run, output, ConsoleReporter(), tuple(metric or []), approval(yes))
        settings = {"recipe": experiment.model_dump(mode="json")}
        page = write_injections(table, settings, output)
    else:
        folders = swept_models(models or [])
        with open_run(output, KIND):
            held_out = held_out_prompts(prompts, count, next(iter(folders.values())))
            setup = setup_of_options(
                held_out, output, reference, reference_clips, reward, clap, detector, vocabulary, metric or [], seed
            )
            own = {
                label: read_model_config(f).sampling.changed(score=score, steps=steps, weight=guidance)
                for label, f in folders.items()
            }
            with ConsoleReporter().progress("cells") as advance:
                table = cross_load_models(
                    setup, folders, run, output / "table", sampling=own, execution=Execution(batch=batch),
                    device=device, progress=advance,
                )  # fmt: skip
            settings = settings_of(setup, folders, own)
            page = write_injections(table, settings, output)
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
    show_table(f"{rows[0].clips} prompts", ("model", "score", "reward", "CLAP score", "Frechet distance"), shown)
    for line in [*(sweep_finding(row) for row in rows), f"Page: {page.resolve()}"]:
        result_console.print(line, soft_wrap=True, highlight=False, markup=False)


def _say_injections(table: CrossTable, page: Path, json: bool) -> None:
    from plaudit.evaluate.pages.sweep import injection_findings
    from plaudit.evaluate.pages.text import number, span
    from plaudit.storage import read_json

    if json:
        show_json(read_json(page.with_name("sweep.json")))
        return
    for metric, title in (("reward", "reward"), ("clap", "CLAP score"), ("frechet", "Frechet distance")):
        rows = []
        for model in table.models:
            cells = [cell.means.get(metric) for cell in table.row(model)]
            rows.append((model, *("-" if c is None else f"{number(c.mean)}\n{span(c, 2)}" for c in cells)))
        show_table(f"{title}, trained by run, {table.clips} prompts", ("trained", *table.injections), rows)
    for line in [*injection_findings(table), f"Page: {page.resolve()}"]:
        result_console.print(line, soft_wrap=True, highlight=False, markup=False)

"""`plaudit evaluate` and `plaudit concepts`: clips against their prompts and a reference, and a detector's errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plaudit.api import ConceptsSettings, EvaluateSettings
from plaudit.cli.console import CommandReporter, Csv, Json, complain, show_csv, show_json, show_table
from plaudit.cli.options import options

if TYPE_CHECKING:
    from plaudit.evaluate.concepts.detectors import ErrorRate


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(evaluate)
    app.command()(concepts)


@options(EvaluateSettings)
def evaluate(
    clips: Annotated[Path, typer.Argument(help="Folder of audio, or a CSV with columns file and prompt (or caption).")],
    *,
    settings: EvaluateSettings,
    csv: Csv = None,
    json: Json = False,
) -> None:
    """Evaluate clips against their prompts and a reference: each metric with its 95 % interval, and values per clip.

    Exits 1 if a clip is missing or can't be read; the others are evaluated all the same. Clips of plaudit generate
    record their prompts, so they need no --prompts; candidates of --best-of are skipped.

    Example: plaudit evaluate out --prompts prompts.csv --reference music/ -o evaluation
    """
    from plaudit import api
    from plaudit.evaluate.metrics import cautions, metric_called

    evaluation = api.evaluate(clips, settings, reporter=CommandReporter())
    for note in evaluation.notes:
        complain(note)
    if csv is not None:
        show_csv(csv, *evaluation.table())
    if json:
        show_json(evaluation.summary())
    elif csv != Path("-"):
        rows = [
            (m["key"], "-" if m["value"] is None else m["value"], _interval(m), metric_called(m["metric"]).better,
             m["clips"], m["note"])
            for m in evaluation.sets
        ]  # fmt: skip
        columns = ("metric", "value", "95 % interval", "better", "clips", "note")
        total = len(evaluation.clips)
        show_table(f"{total - len(evaluation.failed)} of {total} clips", columns, rows)
        if any(m["metric"] == "concepts" for m in evaluation.sets):
            print(_limits(evaluation.settings["detector_errors"]))
        for line in cautions([m["metric"] for m in evaluation.sets]):
            print(line)
    if evaluation.failed:
        raise typer.Exit(1)


def _interval(row: dict[str, Any]) -> str:
    return "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"


def _limits(values: dict[str, Any] | None) -> str:
    """A note on the detector's error rates, which limit concept coverage."""
    from plaudit.evaluate.concepts.detectors import rates_from_dict

    if values is None:
        return "concepts: the detector's error rates are not known; plaudit concepts measures them"
    rates = rates_from_dict(values)
    wrong = [
        f"{name} {rates.missed[name].fraction or 0:.0%}/{rates.false[name].fraction or 0:.0%}"
        for name in rates.missed
        if name in rates.false
    ]
    return (
        f"concepts: the detector misses/falsely detects {', '.join(wrong)} ({rates.measured_on}); "
        f"matching clips reach {rates.right.mean:.2f}, clips of other prompts {rates.other.mean:.2f}"
    )


@options(ConceptsSettings, skip=("reward",))
def concepts(*, settings: ConceptsSettings, json: Json = False) -> None:
    """Measure the error rates of the concept detector, on clips whose concepts are known.

    Example: plaudit concepts --detector clap --clap laion-music -o errors.json
    """
    from plaudit.api import measure_detector

    rates = measure_detector(settings, reporter=CommandReporter())
    if json:
        show_json(rates.to_dict())
        return
    rows = [
        (name, _cell(rates.missed.get(name)), _cell(rates.false.get(name)))
        for name in dict.fromkeys([*rates.missed, *rates.false])
    ]
    show_table(f"{rates.detector}: {rates.measured_on}", ("category", "missed", "falsely detected"), rows)
    print(f"clips reach {rates.right.mean:.3f} by their own captions, {rates.other.mean:.3f} by others'")


def _cell(rate: ErrorRate | None) -> str:
    return "-" if rate is None or rate.fraction is None else f"{rate.fraction:.3f} ({rate.wrong} of {rate.total})"

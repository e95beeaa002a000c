"""`plaudit compare`: systems on the same prompts."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.cli.console import progress_console, result_console, show_csv, show_json, show_table

if TYPE_CHECKING:
    from plaudit.evaluate.compare.table import ComparisonTable


class By(StrEnum):
    """What pairs the clips of two systems."""

    id = "id"
    prompt = "prompt"


Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric; repeat it. Default: all in common.")]
Margins = Annotated[
    list[str] | None,
    typer.Option(
        "--margin", metavar="METRIC=SIZE",
        help="Differences below this count as none; repeat it. Default: 0.2 standard deviations between prompts.",
    ),
]  # fmt: skip
PairBy = Annotated[By | None, typer.Option(help="Pair clips by this column. Default: id where all have one.")]
Common = Annotated[
    bool, typer.Option("--shared-prompts", help="Compare the prompts that all systems have; say how many not.")
]
Series = Annotated[
    bool, typer.Option("--ordered", help="Systems are a series, as checkpoints are: where do reward and others part?")
]
Sort = Annotated[str | None, typer.Option(help="Order the page's players by the differences of this metric.")]
Players = Annotated[int, typer.Option(min=0, help="How many prompts to listen to: half the worst, half the best.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the page, its clips, JSON and CSV.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the table as CSV to this file; - prints it.")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM...",
            help="Runs, or RUN:STAGE for another than the last; folders of plaudit evaluate -o; or CSVs with id or "
            "prompt, and metrics.",
        ),
    ],
    metric: Metrics = None,
    by: PairBy = None,
    common: Common = False,
    margin: Margins = None,
    series: Series = False,
    sort: Sort = None,
    players: Players = 20,
    output: Output = None,
    csv: Csv = None,
    json: Json = False,
) -> None:
    """Compare systems on the same prompts: differences with intervals and tests, and a page to hear them side by side.

    The first system is what the others are held against. A CSV with a column `system` holds several; with a column
    `seed`, several clips of a prompt.

    Example: plaudit compare runs/baseline runs/tuned -o comparison
    """
    from plaudit.evaluate.compare.pairing import pair
    from plaudit.evaluate.compare.series import track_series
    from plaudit.evaluate.compare.systems import read_systems
    from plaudit.evaluate.compare.table import compare as compared
    from plaudit.evaluate.pages.comparison import comparison_summary, results, write_comparison
    from plaudit.evaluate.pages.text import divergence_sentence
    from plaudit.pipeline.compared import systems_at

    margins = _margins(margin or [])
    pairing = pair(read_systems(systems, systems_at), metric, None if by is None else by.value, common)
    table = compared(pairing, margins)
    watched = track_series(pairing) if series else []
    page = None if output is None else write_comparison(table, output, sort=sort, players=players, series=watched)
    for note in [*pairing.notes, *(f"not tested: {reason}" for reason in table.untested)]:
        progress_console.print(note, highlight=False, soft_wrap=True, markup=False)
    if csv is not None:
        rows = table.to_rows()
        show_csv(csv, list(rows[0]), rows)
    if json:
        show_json(results(table, watched))
    elif csv != Path("-"):
        _show(table)
        told = [divergence_sentence(one.divergence, pairing.systems, one.metric) for one in watched]
        for line in [*told, *([f"Page: {page.resolve()}"] if page else []), comparison_summary(table)]:
            result_console.print(line, highlight=False, soft_wrap=True, markup=False)


def _margins(told: list[str]) -> dict[str, float]:
    found = {}
    for one in told:
        name, _, size = one.rpartition("=")
        try:
            found[name] = float(size)
        except ValueError:
            found[name] = math.nan
        if not name or not 0 <= found[name] < math.inf:
            raise typer.BadParameter(f"--margin {one}: say METRIC=SIZE, a size from 0, e.g. --margin reward=0.05")
    return found


def _show(table: ComparisonTable) -> None:
    from plaudit.evaluate.pages.text import p_value, signed, span

    pairing = table.pairing
    seeds = f", {pairing.seeds} seeds each" if pairing.seeds > 1 else ""
    for first, second in dict.fromkeys((row.first, row.second) for row in table.rows):
        shown = [
            (
                row.metric,
                f"{signed(row.difference.mean)} {span(row.difference)}",
                p_value(row.p_holm).removeprefix("p = ").removeprefix("p "),
                row.verdict,
                row.prompts_needed or "none is enough",
            )
            for row in table.of_pair(first, second)
        ]
        columns = ("metric", "difference, 95 %", "corrected p", "verdict", "prompts needed")
        show_table(f"{second} minus {first}: {len(pairing.prompts)} prompts{seeds}", columns, shown)

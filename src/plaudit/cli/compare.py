"""`plaudit compare`: systems on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plaudit.api import CompareSettings
from plaudit.cli.console import CommandReporter, Csv, Json, say, show_csv, show_json, show_table
from plaudit.cli.options import options

if TYPE_CHECKING:
    from plaudit.evaluate.comparison import ComparisonTable


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


@options(CompareSettings)
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM...",
            help="Runs, or RUN:STAGE for another than the last; folders of clips, or of plaudit evaluate -o; CSVs with "
            "id or prompt, and metrics.",
        ),
    ],
    *,
    settings: CompareSettings,
    csv: Csv = None,
    json: Json = False,
) -> None:
    """Compare systems on the same prompts: differences with intervals and tests, and a page to play them side by side.

    The first system is the baseline. A CSV with a column `system` holds several; with a column `seed`, several clips of
    a prompt.

    Example: plaudit compare runs/baseline runs/tuned -o comparison
    """
    from plaudit import api
    from plaudit.evaluate.metrics import cautions
    from plaudit.evaluate.pages.comparison import comparison_summary, results
    from plaudit.evaluate.pages.text import divergence_sentence

    comparison = api.compare(systems, settings, reporter=CommandReporter())
    table, series, page = comparison.table, comparison.series, comparison.page
    if csv is not None:
        rows = table.to_rows()
        show_csv(csv, list(rows[0]), rows)
    if json:
        show_json(results(table, series))
    elif csv != Path("-"):
        _show(table)
        divergences = [divergence_sentence(one.divergence, table.pairing.systems, one.metric) for one in series]
        where = [f"Page: {page.resolve()}"] if page else []
        for line in [*cautions([row.metric for row in table.rows]), *divergences, *where, comparison_summary(table)]:
            say(line)


def _show(table: ComparisonTable) -> None:
    from plaudit.evaluate.pages.text import p_value, signed, span

    pairing = table.pairing
    seeds = f", {pairing.seeds} seeds each" if pairing.seeds > 1 else ""
    for first, second in dict.fromkeys((row.first, row.second) for row in table.rows):
        shown = [
            (
                row.metric,
                f"{signed(row.difference.mean)} {span(row.difference)}",
                p_value(row.p_holm or 0.0).removeprefix("p = ").removeprefix("p "),
                row.verdict,
                row.prompts_needed or "none is enough",
            )
            for row in table.of_pair(first, second)
        ]
        columns = ("metric", "difference, 95 %", "corrected p", "verdict", "prompts needed")
        show_table(f"{second} minus {first}: {len(pairing.prompts)} prompts{seeds}", columns, shown)

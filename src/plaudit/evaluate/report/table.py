"""The table of stages, for the page and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.evaluate.report.results import Change, Results, StageRow
from plaudit.evaluate.report.wording import (
    number,
    p_value,
    paid_for,
    percent,
    percent_span,
    signed,
    span,
    watch_finding,
)
from plaudit.evaluate.statistics import Interval

METRICS = ("reward", "clap", "frechet", "utility")
HEADINGS = {"reward": "Reward", "clap": "CLAP score", "frechet": "Fréchet distance"}
EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One number with its interval. `verdict` is "better", "worse" or "" where nothing is established."""

    value: str
    interval: str
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class TableCells:
    """The table as text: headings [C], then per stage its title, note and cells [C]."""

    headings: list[str]
    keys: list[str]
    rows: list[tuple[StageRow, list[Cell]]]
    change_rows: list[tuple[StageRow, list[Cell]]]


def table_cells(results: Results, utility_name: str) -> TableCells:
    """The cells of the table of stages and of the table of changes, in the same order of metrics."""
    with_truth = all(row.utility is not None for row in results.stages)
    keys = [key for key in METRICS if key != "utility" or with_truth]
    return TableCells(
        headings=[HEADINGS.get(key, utility_name.capitalize()) for key in keys],
        keys=keys,
        rows=[
            (row, [_level(getattr(row, key)) for key in keys] + [_share(row.wins_previous), _share(row.wins_baseline)])
            for row in results.stages
        ],
        change_rows=[
            (row, [_change({c.metric: c for c in row.changes}[key]) for key in keys]) for row in results.stages[1:]
        ],
    )


def markdown_table(results: Results, utility_name: str) -> str:
    """The table of stages in Markdown, for pasting into documents."""
    cells = table_cells(results, utility_name)
    headings = ["Stage", *cells.headings, "Wins against previous", "Wins against baseline"]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row, numbers in cells.rows:
        texts = [f"{cell.value} {cell.interval}".strip() for cell in numbers]
        lines.append(f"| {' | '.join([row.title.replace('|', '/'), *texts])} |")
    lines += ["", "| Change against previous | " + " | ".join(cells.headings) + " |"]
    lines.append(f"|{'---|' * (len(cells.headings) + 1)}")
    for row, numbers in cells.change_rows:
        texts = [" ".join(filter(None, [c.value, c.interval, f"({c.note})" if c.note else ""])) for c in numbers]
        flag = f" (reward paid for with {', '.join(paid_for(row, utility_name))})" if row.paid_for_reward else ""
        lines.append(f"| {' | '.join([row.title.replace('|', '/') + flag, *texts])} |")
    if flags := watch_finding(results, utility_name):
        lines += ["", flags]
    lines += [
        "",
        f"Mean and 95 % bootstrap interval over {results.stages[0].clips} held-out prompts; wins are decided by "
        f"{results.wins_by}; p-values are of paired t-tests, corrected together (Holm, {results.tests} tests).",
    ]
    return "\n".join(lines) + "\n"


def _level(interval: Interval) -> Cell:
    return Cell(number(interval.mean), span(interval))


def _share(interval: Interval | None) -> Cell:
    return Cell(EMPTY, "") if interval is None else Cell(percent(interval.mean), percent_span(interval))


def _change(change: Change) -> Cell:
    better = change.difference.mean < 0 if change.metric == "frechet" else change.difference.mean > 0
    return Cell(
        value=signed(change.difference.mean),
        interval=span(change.difference),
        note="" if change.p_holm is None else p_value(change.p_holm),
        verdict=("better" if better else "worse") if change.established else "",
    )

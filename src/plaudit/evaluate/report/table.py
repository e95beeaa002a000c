"""The tables of stages: for the page, as Markdown, and as rows for CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.evaluate.changes import Change
from plaudit.evaluate.report.data import ReportData
from plaudit.evaluate.report.names import HEADINGS, better
from plaudit.evaluate.report.results import Results, StageRow
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
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.statistics import Interval
from plaudit.evaluate.sweeps.score import SweepRow
from plaudit.files import path_in

CHOSEN = ("reward", "clap", "concepts", "frechet", "utility")
"""The metrics of the main table; those that are not known are left out. Others of a set have a table of their own."""

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
    """The tables as text: headings [C], then per stage its cells [C].

    set_rows: of further metrics of the set, a row per metric: its name, which way is better, and a cell per stage.
    set_notes: what a reader of these must know.
    """

    headings: list[str]
    keys: list[str]
    rows: list[tuple[StageRow, list[Cell]]]
    change_rows: list[tuple[StageRow, list[Cell]]]
    set_rows: list[tuple[str, str, list[Cell]]]
    set_notes: list[str]


def known_metrics(results: Results) -> list[str]:
    """The metrics of the main table that are known of this run."""
    return [key for key in CHOSEN if key == "frechet" or key in results.metrics]


def heading(metric: str, utility_name: str) -> str:
    """What a metric is called at the head of a column."""
    return utility_name.capitalize() if metric == "utility" else HEADINGS[metric]


def table_cells(results: Results, utility_name: str) -> TableCells:
    """The cells of all tables, in the same order of metrics."""
    keys = known_metrics(results)
    set_rows, set_notes = _set_cells([row.sets for row in results.stages])
    return TableCells(
        headings=[heading(key, utility_name) for key in keys],
        keys=keys,
        rows=[
            (row, [_level(getattr(row, key)) for key in keys] + [_share(row.wins_previous), _share(row.wins_baseline)])
            for row in results.stages
        ],
        change_rows=[(row, [_change(_of(row.changes, key)) for key in keys]) for row in results.stages[1:]],
        set_rows=set_rows,
        set_notes=set_notes,
    )


def _set_cells(stages: Sequence[Sequence[MetricResult]]) -> tuple[list[tuple[str, str, list[Cell]]], list[str]]:
    """Rows of the metrics that every stage has, and the distinct notes on them."""
    names = [one.name for one in stages[0] if all(any(o.name == one.name for o in other) for other in stages)]
    rows, notes = [], list[str]()
    for name in names:
        found = [next(one for one in stage if one.name == name) for stage in stages]
        rows.append((HEADINGS[name], f"{found[0].better} is better", [_set_cell(one) for one in found]))
        notes += [f"{HEADINGS[name]}: {one.note}." for one in found if one.note]
    return rows, list(dict.fromkeys(notes))


def _set_cell(result: MetricResult) -> Cell:
    if result.value is None:
        return Cell(EMPTY, "")
    if result.low is None or result.high is None:
        return Cell(number(result.value), "")
    return Cell(number(result.value), span(Interval(result.value, result.low, result.high)))


def markdown_table(results: Results, utility_name: str) -> str:
    """The tables of stages in Markdown, for pasting into documents."""
    cells = table_cells(results, utility_name)
    headings = ["Stage", *cells.headings, "Wins against previous", "Wins against baseline"]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row, numbers in cells.rows:
        lines.append(f"| {' | '.join([row.title.replace('|', '/'), *map(_text, numbers)])} |")
    lines += ["", "| Change against previous | " + " | ".join(cells.headings) + " |"]
    lines.append(f"|{'---|' * (len(cells.headings) + 1)}")
    for row, numbers in cells.change_rows:
        flag = f" (reward paid for with {', '.join(paid_for(row, utility_name))})" if row.paid_for_reward else ""
        lines.append(f"| {' | '.join([row.title.replace('|', '/') + flag, *map(_text, numbers)])} |")
    if cells.set_rows:
        titles = [row.title.replace("|", "/") for row in results.stages]
        lines += ["", f"| Metric of the set | {' | '.join(titles)} |", f"|{'---|' * (len(titles) + 1)}"]
        lines += [f"| {name}, {way} | {' | '.join(map(_text, row))} |" for name, way, row in cells.set_rows]
    if flags := watch_finding(results, utility_name):
        lines += ["", flags]
    lines += [
        "",
        f"Mean and 95 % bootstrap interval over {results.stages[0].clips} held-out prompts; wins are decided by "
        f"{results.wins_by}; changes are paired by prompt with BCa intervals, g is Hedges' effect size, p-values are "
        f"of paired t-tests, corrected together (Holm, {results.tests} tests).",
    ]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    return " ".join(filter(None, [cell.value, cell.interval, f"({cell.note})" if cell.note else ""]))


def _level(interval: Interval) -> Cell:
    return Cell(number(interval.mean), span(interval))


def _share(interval: Interval | None) -> Cell:
    return Cell(EMPTY, "") if interval is None else Cell(percent(interval.mean), percent_span(interval))


def _of(changes: Sequence[Change], metric: str) -> Change | None:
    return next((change for change in changes if change.metric == metric), None)


def _change(change: Change | None) -> Cell:
    if change is None:
        return Cell(EMPTY, "")
    effect = "" if change.effect is None else f"g {signed(change.effect.g, 2)}"
    test = "" if change.p_holm is None else p_value(change.p_holm)
    return Cell(
        value=signed(change.difference.mean),
        interval=span(change.difference),
        note=", ".join(filter(None, [effect, test])),
        verdict=change.verdict,
    )


def stage_rows(results: Results) -> list[dict[str, Any]]:
    """Every metric of every stage, a row each."""
    rows = []
    for row in results.stages:
        means = {key: getattr(row, key) for key in known_metrics(results)}
        means |= {"wins-previous": row.wins_previous, "wins-baseline": row.wins_baseline, "agreement": row.agreement}
        for metric, value in means.items():
            if value is not None:
                rows.append(_row(row.key, metric, value.mean, value.low, value.high, better(metric), row.clips, ""))
        for one in row.sets:
            rows.append(_row(row.key, one.name, one.value, one.low, one.high, one.better, one.clips, one.note))
    return rows


def _row(stage: str, metric: str, *rest: Any) -> dict[str, Any]:
    columns = ("value", "low", "high", "better", "clips", "note")
    return {"stage": stage, "metric": metric, **dict(zip(columns, rest, strict=True))}


def change_rows(results: Results) -> list[dict[str, Any]]:
    """Every change against the stage before, a row each."""
    return [
        {
            "stage": row.key,
            "against": results.stages[place].key,
            "metric": change.metric,
            "difference": change.difference.mean,
            "low": change.difference.low,
            "high": change.difference.high,
            "p_t": change.p_t,
            "p_wilcoxon": change.p_wilcoxon,
            "p_holm": change.p_holm,
            "hedges_g": None if change.effect is None else change.effect.g,
            "rank_biserial": None if change.effect is None else change.effect.rank_biserial,
            "clips": change.clips,
            "verdict": change.verdict,
        }
        for place, row in enumerate(results.stages[1:])
        for change in row.changes
    ]


def sweep_rows(sweeps: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """Every metric of every point of every sweep, a row each."""
    rows = []
    for sweep in sweeps:
        for metric in ("reward", "clap", "concepts", "utility", "frechet"):
            for score, value in zip(sweep.asked, getattr(sweep, metric) or [], strict=False):
                rows.append(_point(sweep, score, metric, value.mean, value.low, value.high))
        for metric, values in sweep.sets.items():
            for score, one in zip(sweep.asked, values, strict=True):
                rows.append(_point(sweep, score, metric, one.value, one.low, one.high))
    return rows


def _point(sweep: SweepRow, score: float, metric: str, *value: float | None) -> dict[str, Any]:
    numbers = dict(zip(("value", "low", "high"), value, strict=True))
    return {"model": sweep.stage, "score": score, "metric": metric, **numbers, "clips": sweep.clips}


def clip_rows(data: ReportData, folder: Path) -> list[dict[str, Any]]:
    """Every clip's file and values, as `plaudit compare` reads them from a table in `folder`."""
    rows = []
    with_files = any(stage.clips is not None for stage in data.stages)
    for stage in data.stages:
        scores = stage.scores
        values = {name: getattr(scores, name) for name in ("reward", "clap", "concepts", "utility")}
        for place, prompt in enumerate(scores.prompts):
            told = {name: None if v is None or v[place] != v[place] else float(v[place]) for name, v in values.items()}
            id = f"{place:04d}"
            file = "" if stage.clips is None else path_in(folder, stage.clips / f"{id}.wav")
            files = {"file": file} if with_files else {}
            rows.append({"system": stage.key, "id": id, "prompt": prompt, **files, **told})
    return rows

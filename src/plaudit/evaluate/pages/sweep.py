"""Sweeps over conditioning scores and injections: their numbers, and the page, JSON, CSV and figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plaudit import __version__
from plaudit.errors import RunError
from plaudit.evaluate.comparison import COMPARISON_SEED, Difference, corrected, differences_of_values
from plaudit.evaluate.metrics import cautions, lower_is_better
from plaudit.evaluate.pages.charts import (
    Chart,
    Draw,
    chart,
    heat_map,
    heat_map_size,
    lines,
    save_panels,
    sweep_charts,
    sweep_series,
)
from plaudit.evaluate.pages.html import csv_of, data_address, rendered
from plaudit.evaluate.pages.text import (
    EMPTY,
    Cell,
    difference,
    directed_heading,
    heading,
    in_sentence,
    level_cell,
    p_value,
    set_cell,
    sweep_finding,
    sweep_rows,
    value_columns,
)
from plaudit.evaluate.values import SetValue, Values
from plaudit.statistics import Interval, bootstrap_mean, bootstrap_statistic, spearman
from plaudit.storage import write_atomically, write_json

SWEEP_NUMBERS, SWEEP_TABLE, SWEEP_FIGURE, SWEEP_PAGE = "sweep.json", "sweep.csv", "sweep.svg", "index.html"


@dataclass(frozen=True)
class Sweep:
    """One model at several conditioning scores [S], with the same prompts and seeds at each: points [S].

    failed: scores whose clips could not be evaluated, and why; they are in no number.
    """

    stage: str
    scores: list[float]
    points: list[Values]
    failed: dict[float, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether at least two points were evaluated."""
        return len(self.points) > 1


@dataclass(frozen=True)
class SweepRow:
    """The numbers of one sweep, in lists by conditioning score.

    means: by metric of clips, and the Frechet distance. sets: further set metrics. reward_correlation,
    utility_correlation: Spearman, of the conditioning score with mean reward and with mean true utility. reward_range:
    of the mean reward over the scores.
    """

    stage: str
    scores: list[float]
    means: dict[str, list[Interval]]
    sets: dict[str, list[SetValue]]
    reward_correlation: Interval
    utility_correlation: Interval | None
    reward_range: float
    clips: int
    failed: dict[float, str] = field(default_factory=dict)


def sweep_row(sweep: Sweep) -> SweepRow:
    """The numbers of a sweep; RunError where fewer than two of its points were evaluated."""
    if len(sweep.scores) != len(sweep.points) or not sweep.usable:
        reasons = "".join(f"; at {score:g}: {reason}" for score, reason in sweep.failed.items())
        raise RunError(
            f"the sweep of {sweep.stage} has {len(sweep.points)} points for {len(sweep.scores)} scores{reasons}"
        )
    metrics = [name for name in sweep.points[0].clip_metrics if all(name in p.clip_metrics for p in sweep.points)]
    values = {name: _values(sweep.points, name) for name in metrics}
    sets: dict[str, list[SetValue]] = {}
    for point in sweep.points:
        for one in further_sets(point):
            sets.setdefault(one.metric, []).append(one)
    means = values["reward"].mean(axis=1)
    return SweepRow(
        stage=sweep.stage,
        scores=list(sweep.scores),
        means={name: [bootstrap_mean(row, COMPARISON_SEED) for row in of] for name, of in values.items()}
        | {"frechet": [means_of(point, [])["frechet"] for point in sweep.points]},
        sets=sets,
        reward_correlation=_correlation(sweep.scores, values["reward"]),
        utility_correlation=_correlation(sweep.scores, values["utility"]) if "utility" in values else None,
        reward_range=float(means.max() - means.min()),
        clips=values["reward"].shape[1],
        failed=dict(sweep.failed),
    )


def means_of(values: Values, metrics: Sequence[str]) -> dict[str, Interval]:
    """The means of metrics of clips, and the Frechet distance, with their intervals."""
    columns = {name: values.clip(name) for name in metrics}
    means = {name: bootstrap_mean(of[~np.isnan(of)], COMPARISON_SEED) for name, of in columns.items()}
    frechet = values.set("frechet")
    return means if frechet is None or frechet.interval is None else means | {"frechet": frechet.interval}


def further_sets(values: Values) -> list[SetValue]:
    """Metrics of the set that have no column of their own."""
    return [one for one in values.sets if one.metric != "frechet"]


def _values(points: Sequence[Values], metric: str) -> np.ndarray:
    """A metric [S, B] of the clips that have it at every point."""
    table = np.stack([point.clip(metric) for point in points])
    return table[:, ~np.isnan(table).any(axis=0)]


def _correlation(scores: Sequence[float], values: np.ndarray) -> Interval:
    """The rank correlation of scores [S] and the means of values [S, B], over resampled prompts."""
    prompts = values.shape[1]
    return bootstrap_statistic(lambda rows: spearman(scores, values[:, rows].mean(axis=1)), prompts, COMPARISON_SEED)


@dataclass(frozen=True)
class CrossCell:
    """One model run under one injection, `native` if it was trained under it; its values, or why there are none."""

    model: str
    run: str
    native: bool
    values: Values | str


@dataclass(frozen=True)
class CrossNumbers:
    """The numbers of one cell. failed: why its clips could not be evaluated.

    changes: from the same weights under the injection that they were trained under, paired by prompt.
    """

    model: str
    run: str
    native: bool
    means: dict[str, Interval] = field(default_factory=dict)
    sets: list[SetValue] = field(default_factory=list)
    changes: list[Difference] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True)
class CrossTable:
    """All cells, model by model; p-values are corrected together for all `tests`. clips: of each cell."""

    models: list[str]
    injections: list[str]
    cells: list[CrossNumbers]
    tests: int
    clips: int

    def cell(self, model: str, run: str) -> CrossNumbers:
        """One cell."""
        return next(cell for cell in self.cells if (cell.model, cell.run) == (model, run))

    def row(self, model: str) -> list[CrossNumbers]:
        """The cells of one model."""
        return [self.cell(model, run) for run in self.injections]


def cross_table(cells: Sequence[CrossCell]) -> CrossTable:
    """The numbers of all cells and their changes from the native injection; RunError where no cell was evaluated."""
    if cells and all(isinstance(cell.values, str) for cell in cells):
        raise RunError(f"no cell of the table could be evaluated; the first: {cells[0].values}")
    natives = {c.model: c.values for c in cells if c.native and not isinstance(c.values, str)}
    groups, tests = corrected([_changes(cell, natives.get(cell.model)) for cell in cells])
    return CrossTable(
        models=list(dict.fromkeys(cell.model for cell in cells)),
        injections=list(dict.fromkeys(cell.run for cell in cells)),
        cells=[_numbers(cell, changes) for cell, changes in zip(cells, groups, strict=True)],
        tests=tests,
        clips=max((len(cell.values.clips) for cell in cells if not isinstance(cell.values, str)), default=0),
    )


def _changes(cell: CrossCell, native: Values | None) -> list[Difference]:
    if cell.native or native is None or isinstance(cell.values, str):
        return []
    return differences_of_values(native, cell.values)


def _numbers(cell: CrossCell, changes: list[Difference]) -> CrossNumbers:
    if isinstance(cell.values, str):
        return CrossNumbers(cell.model, cell.run, cell.native, failed=cell.values)
    means = means_of(cell.values, cell.values.clip_metrics)
    return CrossNumbers(cell.model, cell.run, cell.native, means, further_sets(cell.values), changes)


@dataclass(frozen=True)
class SweepTable:
    """One table of the page."""

    title: str
    headings: list[str]
    rows: list[tuple[str, list[Cell]]]


def write_scores(rows: Sequence[SweepRow], settings: Mapping[str, Any], folder: Path, x_label: str) -> Path:
    """Write the results of a sweep over scores into `folder`; the page's path."""
    findings = [sweep_finding(row) for row in rows]
    note = f"{rows[0].clips} prompts, with the same seeds at every score. Intervals are 95 % bootstrap over prompts."
    note = " ".join([note, *cautions(list(rows[0].means))])
    panels = {directed_heading(m): lines(sweep_series(rows, m, {}), x_label) for m in ("reward", "frechet")}
    save_panels(panels, folder / SWEEP_FIGURE)
    numbers = {"kind": "score", "models": [asdict(row) for row in rows], "findings": findings}
    charts, tables = sweep_charts(rows, {}, x_label), [_score_table(row) for row in rows]
    return _write(folder, "Score sweep", note, numbers, sweep_rows(rows), settings, findings, charts, tables)


def write_injections(table: CrossTable, settings: Mapping[str, Any], folder: Path) -> Path:
    """Write the cross-load table into `folder`; the page's path."""
    metrics = list(dict.fromkeys(name for cell in table.cells for name in cell.means))
    first = ("reward", "clap", "frechet", "utility", "concepts")
    metrics.sort(key=lambda name: first.index(name) if name in first else len(first))
    panels = {directed_heading(name): _map(table, name) for name in metrics}
    size = heat_map_size(len(table.models), len(table.injections))
    charts = [
        chart(draw, f"injections-{name}", title, f"{title}: training by sampling injection.", size, wide=True)
        for name, (title, draw) in zip(metrics, panels.items(), strict=True)
    ]
    save_panels(dict(list(panels.items())[:3]), folder / SWEEP_FIGURE, size)
    findings = injection_findings(table)
    note = (
        f"{table.clips} prompts, with the same seeds in every cell. Intervals are 95 % bootstrap over prompts. Framed "
        "cells run under the injection that they were trained with; stronger colours are better. A change is "
        "significant where its interval excludes zero and, for metrics of single clips, its p-value is below "
        f"0.05 after correction for all {table.tests} tests."
    )
    note = " ".join([note, *cautions(metrics)])
    tables = [_set_table(table, name) for name in dict.fromkeys(one.metric for c in table.cells for one in c.sets)]
    numbers, rows = {"kind": "injections", **asdict(table), "findings": findings}, injection_rows(table)
    return _write(folder, "Cross-load table", note, numbers, rows, settings, findings, charts, tables)


def _write(
    folder: Path, title: str, note: str, numbers: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any], findings: Sequence[str], charts: Sequence[Chart], tables: Sequence[SweepTable],
) -> Path:  # fmt: skip
    write_json(folder / SWEEP_NUMBERS, {"plaudit": __version__, **numbers, "settings": settings})
    write_atomically(folder / SWEEP_TABLE, csv_of(rows))
    page = rendered(
        "sweep.html",
        title=title,
        note=note,
        findings=findings,
        charts=charts,
        tables=tables,
        files={"sweep": data_address("text/csv", csv_of(rows))},
        json=data_address("application/json", (folder / SWEEP_NUMBERS).read_bytes()),
        settings=settings,
    )
    write_atomically(folder / SWEEP_PAGE, page)
    return folder / SWEEP_PAGE


def _score_table(row: SweepRow) -> SweepTable:
    cells = [
        (f"{score:g}", [level_cell(of[i]) for of in row.means.values()] + [set_cell(of[i]) for of in row.sets.values()])
        for i, score in enumerate(row.scores)
    ]
    return SweepTable(row.stage, ["Score", *(heading(name) for name in (*row.means, *row.sets))], cells)


def _set_table(table: CrossTable, metric: str) -> SweepTable:
    def cell(numbers: CrossNumbers) -> Cell:
        return next((set_cell(one) for one in numbers.sets if one.metric == metric), Cell(EMPTY))

    rows = [(model, [cell(one) for one in table.row(model)]) for model in table.models]
    headings = ["Trained \N{RIGHTWARDS ARROW} sampled", *table.injections]
    return SweepTable(directed_heading(metric), headings, rows)


def _map(table: CrossTable, metric: str) -> Draw:
    rows = [table.row(model) for model in table.models]
    means = [[cell.means.get(metric) for cell in row] for row in rows]
    native = [[cell.native for cell in row] for row in rows]
    labels = ("trained with", "sampled with")
    return heat_map(table.models, table.injections, means, native, lower_is_better(metric), labels)


def injection_findings(table: CrossTable) -> list[str]:
    """For each model, the significant changes under other injections."""
    sentences = []
    for model in table.models:
        parts, unchanged = [], []
        for cell in table.row(model):
            changes = [
                f"{in_sentence(change.metric)} {difference(change.difference)}"
                + ("" if change.p_holm is None else f" ({p_value(change.p_holm)})")
                for change in cell.changes
                if change.established
            ]
            if cell.failed:
                parts.append(f"with {cell.run}, the clips could not be evaluated ({cell.failed})")
            elif changes:
                parts.append(f"with {cell.run}, {', '.join(changes)}")
            elif cell.changes:
                unchanged.append(cell.run)
        if unchanged:
            parts.append(f"no significant change with {', '.join(unchanged)}")
        if parts:
            sentences.append(f"{model}, compared with its own injection: {'; '.join(parts)}.")
    return sentences


def injection_rows(table: CrossTable) -> list[dict[str, Any]]:
    """Every metric of every cell, a row each, with its change from the model's own injection."""
    rows = []
    for cell in table.cells:
        changes = {change.metric: change for change in cell.changes}
        where = {"trained": cell.model, "run": cell.run, "native": cell.native}
        values: dict[str, Interval | SetValue] = {**cell.means, **{one.metric: one for one in cell.sets}}
        for name, value in values.items():
            columns = where | {"metric": name} | value_columns(value)
            rows.append(columns | _change_columns(changes.get(name)) | {"note": ""})
        if cell.failed:
            empty = dict.fromkeys(("value", "low", "high"))
            rows.append(where | {"metric": ""} | empty | _change_columns(None) | {"note": cell.failed})
    return rows


def _change_columns(change: Difference | None) -> dict[str, Any]:
    if change is None:
        return dict.fromkeys(("change", "change_low", "change_high", "p_holm"))
    gap = change.difference
    return {"change": gap.mean, "change_low": gap.low, "change_high": gap.high, "p_holm": change.p_holm}

"""Sweeps over the conditioning score and over injections: their numbers, and the page, JSON, CSV and figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plaudit import __version__
from plaudit.errors import RunError
from plaudit.evaluate.changes import CHANGE_SEED, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.pages.charts import (
    DARK,
    LIGHT,
    Chart,
    Draw,
    chart,
    heat_map,
    heat_map_size,
    lines,
    name_of,
    save_panels,
    sweep_charts,
    sweep_series,
)
from plaudit.evaluate.pages.html import csv_of, data_address, rendered
from plaudit.evaluate.pages.text import (
    EMPTY,
    HEADINGS,
    better,
    number,
    p_value,
    signed,
    span,
    sweep_finding,
    sweep_rows,
)
from plaudit.evaluate.results_table import MetricResult
from plaudit.statistics import Interval, bootstrap_mean, bootstrap_statistic, spearman
from plaudit.storage import write_atomically, write_json


@dataclass(frozen=True)
class Sweep:
    """One model asked for several scores, with the same prompts and seeds at each: asked [S], points [S].

    unjudged: scores whose clips nobody could judge, and why; they are in none of the numbers.
    """

    stage: str
    asked: list[float]
    points: list[StageScores]
    failed: dict[float, str] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether enough of its points can be judged to speak of it."""
        return len(self.points) > 1


@dataclass(frozen=True)
class SweepRow:
    """The numbers of one sweep; lists are by score asked for. What is not known is None.

    sets: further metrics of the set by name. follows, truth_follows: rank correlation of the score asked for with mean
    reward, and with mean true utility. spread: the range of the mean reward over the scores.
    """

    stage: str
    asked: list[float]
    reward: list[Interval]
    clap: list[Interval]
    frechet: list[Interval]
    utility: list[Interval] | None
    concepts: list[Interval] | None
    sets: dict[str, list[MetricResult]]
    follows: Interval
    truth_follows: Interval | None
    spread: float
    clips: int
    failed: dict[float, str] = field(default_factory=dict)


def sweep_row(sweep: Sweep) -> SweepRow:
    """The numbers of a sweep; RunError where fewer than two of its points can be judged."""
    if len(sweep.asked) != len(sweep.points) or not sweep.judged:
        reasons = "".join(f"; at {score:g}: {reason}" for score, reason in sweep.failed.items())
        raise RunError(
            f"the sweep of {sweep.stage} has {len(sweep.points)} points for {len(sweep.asked)} scores{reasons}"
        )
    rewards = _values(sweep.points, "reward")
    utilities = _values(sweep.points, "utility")
    assert rewards is not None
    means = rewards.mean(axis=1)
    return SweepRow(
        stage=sweep.stage,
        asked=list(sweep.asked),
        reward=_means(rewards),
        clap=[bootstrap_mean(point.clap, CHANGE_SEED) for point in sweep.points],
        frechet=[point.frechet_interval for point in sweep.points],
        utility=None if utilities is None else _means(utilities),
        concepts=None if (found := _values(sweep.points, "concepts")) is None else _means(found),
        sets=_sets(sweep.points),
        follows=_follows(sweep.asked, rewards),
        truth_follows=None if utilities is None else _follows(sweep.asked, utilities),
        spread=float(means.max() - means.min()),
        clips=rewards.shape[1],
        failed=dict(sweep.failed),
    )


def _values(points: Sequence[StageScores], metric: str) -> np.ndarray | None:
    """A metric [S, B] of the clips that have it at every point; None where not every point has it."""
    known = [values for point in points if (values := clip_values(point, metric)) is not None]
    if len(known) < len(points):
        return None
    table = np.stack(known)
    return table[:, ~np.isnan(table).any(axis=0)]


def _means(values: np.ndarray) -> list[Interval]:
    return [bootstrap_mean(row, CHANGE_SEED) for row in values]


def _sets(points: Sequence[StageScores]) -> dict[str, list[MetricResult]]:
    found: dict[str, list[MetricResult]] = {}
    for point in points:
        for one in point.sets:
            found.setdefault(one.name, []).append(one)
    return found


def _follows(asked: Sequence[float], values: np.ndarray) -> Interval:
    """The rank correlation of the score asked for [S] and the mean of values [S, B], over resampled prompts."""
    return bootstrap_statistic(lambda rows: spearman(asked, values[:, rows].mean(axis=1)), values.shape[1], CHANGE_SEED)


@dataclass(frozen=True)
class CrossCell:
    """One model run under one injection. `native`: it was trained under that one. scores: or why there are none."""

    model: str
    run: str
    native: bool
    scores: StageScores | str


@dataclass(frozen=True)
class CrossNumbers:
    """The numbers of one cell; all None where its clips cannot be judged, which `unjudged` explains.

    changes: against the same weights in the forward pass that they were trained in, paired by prompt.
    """

    model: str
    run: str
    native: bool
    reward: Interval | None = None
    clap: Interval | None = None
    frechet: Interval | None = None
    utility: Interval | None = None
    concepts: Interval | None = None
    sets: list[MetricResult] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True)
class CrossTable:
    """All cells, model by model; p-values of changes are corrected together for all `tests`. clips: of each cell."""

    models: list[str]
    injections: list[str]
    cells: list[CrossNumbers]
    tests: int
    clips: int

    def cell(self, model: str, run: str) -> CrossNumbers:
        """One cell."""
        return next(cell for cell in self.cells if (cell.model, cell.run) == (model, run))


def cross_table(cells: Sequence[CrossCell]) -> CrossTable:
    """The numbers of all cells, and how each differs from its model's own injection; RunError where none has any."""
    if cells and all(isinstance(cell.scores, str) for cell in cells):
        raise RunError(f"no cell of the table can be judged; the first: {cells[0].scores}")
    natives = {c.model: c.scores for c in cells if c.native and not isinstance(c.scores, str)}
    groups, tests = corrected([_against(cell, natives.get(cell.model)) for cell in cells])
    return CrossTable(
        models=list(dict.fromkeys(cell.model for cell in cells)),
        injections=list(dict.fromkeys(cell.run for cell in cells)),
        cells=[_numbers(cell, changes) for cell, changes in zip(cells, groups, strict=True)],
        tests=tests,
        clips=max((len(cell.scores) for cell in cells if not isinstance(cell.scores, str)), default=0),
    )


def _against(cell: CrossCell, native: StageScores | None) -> list[Change]:
    if cell.native or native is None or isinstance(cell.scores, str):
        return []
    return changes_between(cell.scores, native)


def _numbers(cell: CrossCell, changes: list[Change]) -> CrossNumbers:
    if isinstance(cell.scores, str):
        return CrossNumbers(cell.model, cell.run, cell.native, failed=cell.scores)
    scores = cell.scores
    return CrossNumbers(
        cell.model,
        cell.run,
        cell.native,
        reward=_mean(scores, "reward"),
        clap=_mean(scores, "clap"),
        frechet=scores.frechet_interval,
        utility=_mean(scores, "utility"),
        concepts=_mean(scores, "concepts"),
        sets=scores.sets,
        changes=changes,
    )


def _mean(scores: StageScores, metric: str) -> Interval | None:
    values = clip_values(scores, metric)
    return None if values is None else bootstrap_mean(values[~np.isnan(values)], CHANGE_SEED)


SWEEP_NUMBERS, SWEEP_TABLE, SWEEP_FIGURE, SWEEP_PAGE = "sweep.json", "sweep.csv", "sweep.svg", "index.html"
UTILITY = "true utility"
MAPPED = ("reward", "clap", "frechet", "utility", "concepts")
Cells = list[tuple[str, list[tuple[str, str]]]]
"""A table as text: per row its name, and per cell a number and its interval."""


@dataclass(frozen=True)
class SweepTable:
    """One table of the page."""

    title: str
    headings: list[str]
    rows: Cells
    note: str = ""


def write_scores(rows: Sequence[SweepRow], settings: Mapping[str, Any], folder: Path, x_label: str) -> Path:
    """Write what the sweep over scores found into `folder`; the page's path."""
    two = {}
    for metric, title in (("reward", "Reward"), ("frechet", "Fréchet distance (lower is closer)")):
        two[title] = lines(sweep_series(rows, metric, {}), x_label)
    tables = [_score_table(row) for row in rows]
    charts = sweep_charts(rows, {}, UTILITY, x_label)
    findings = [sweep_finding(row, UTILITY) for row in rows]
    numbers = {"kind": "score", "models": [asdict(row) for row in rows], "findings": findings}
    clips = (
        f"{rows[0].clips} prompts, the same seeds at every score; bands and brackets are 95 % intervals over prompts"
    )
    _write(folder, "Asking for a score", clips, numbers, sweep_rows(rows), settings, findings, charts, tables)
    save_panels(two, folder / SWEEP_FIGURE)
    return folder / SWEEP_PAGE


def write_injections(table: CrossTable, settings: Mapping[str, Any], folder: Path) -> Path:
    """Write the cross-load table into `folder`; the page's path."""
    metrics = [name for name in MAPPED if any(getattr(cell, name) is not None for cell in table.cells)]
    draws = {HEADINGS[name] + _direction(name): _map(table, name) for name in metrics}
    size = heat_map_size(len(table.models), len(table.injections))
    charts = [
        chart(draw, f"injections-{name}", title, f"{title}, train by run, a number in each cell.", size, wide=True)
        for name, (title, draw) in zip(metrics, draws.items(), strict=True)
    ]
    findings = injection_findings(table)
    numbers = {"kind": "injections", **asdict(table), "findings": findings}
    clips = (
        f"{table.clips} prompts, the same seeds in every cell; brackets are 95 % intervals over prompts. Framed: "
        "weights in the forward pass that they were trained in. The stronger a cell's colour, the better. A change is "
        f"beyond chance where its interval excludes zero and, but for distances, its p-value corrected for all "
        f"{table.tests} tests is below 0.05."
    )
    rows = injection_rows(table)
    tables = [_set_table(table, name) for name in dict.fromkeys(one.name for c in table.cells for one in c.sets)]
    _write(
        folder, "Trained under one injection, run in another", clips, numbers, rows, settings, findings, charts, tables
    )
    save_panels(dict(list(draws.items())[:3]), folder / SWEEP_FIGURE, size)
    return folder / SWEEP_PAGE


def _write(
    folder: Path, title: str, note: str, numbers: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any], findings: Sequence[str], charts: Sequence[Chart], tables: Sequence[SweepTable],
) -> None:  # fmt: skip
    whole = {"plaudit": __version__, **numbers, "settings": settings}
    write_json(folder / SWEEP_NUMBERS, whole)
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
        version=__version__,
        light=LIGHT,
        dark=DARK,
    )
    write_atomically(folder / SWEEP_PAGE, page)


def _score_table(row: SweepRow) -> SweepTable:
    known: dict[str, list[Interval] | None] = {
        name: getattr(row, name) for name in ("reward", "clap", "concepts", "utility", "frechet")
    }
    shown = {name: values for name, values in known.items() if values is not None}
    cells = [
        (
            f"{score:g}",
            [(number(values[place].mean), span(values[place])) for values in shown.values()]
            + [_of_set(values[place]) for values in row.sets.values()],
        )
        for place, score in enumerate(row.asked)
    ]
    return SweepTable(row.stage, ["Score", *(HEADINGS[name] for name in (*shown, *row.sets))], cells)


def _set_table(table: CrossTable, metric: str) -> SweepTable:
    def told(cell: CrossNumbers) -> tuple[str, str]:
        found = next((one for one in cell.sets if one.name == metric), None)
        return (EMPTY, "") if found is None else _of_set(found)

    rows = [(model, [told(table.cell(model, run)) for run in table.injections]) for model in table.models]
    return SweepTable(
        HEADINGS[metric] + _direction(metric), ["Trained \N{RIGHTWARDS ARROW} run", *table.injections], rows
    )


def _of_set(one: MetricResult) -> tuple[str, str]:
    if one.value is None:
        return (EMPTY, one.note)
    return (
        number(one.value),
        "" if one.low is None or one.high is None else span(Interval(one.value, one.low, one.high)),
    )


def _map(table: CrossTable, metric: str) -> Draw:
    cells = [[table.cell(model, run) for run in table.injections] for model in table.models]
    return heat_map(
        table.models,
        table.injections,
        [[getattr(cell, metric) for cell in row] for row in cells],
        [[cell.native for cell in row] for row in cells],
        better(metric) == "lower",
        ("trained", "run"),
    )


def _direction(metric: str) -> str:
    return " (lower is closer)" if better(metric) == "lower" else ""


def injection_findings(table: CrossTable) -> list[str]:
    """For each model, what running it elsewhere changes beyond chance."""
    sentences = []
    for model in table.models:
        moved, still = [], []
        for cell in (table.cell(model, run) for run in table.injections):
            found = [change for change in cell.changes if change.established]
            if cell.failed:
                moved.append(f"in {cell.run} the clips cannot be judged ({cell.failed})")
            elif found:
                told = ", ".join(
                    f"{name_of(c.metric, UTILITY)} {signed(c.difference.mean)} {span(c.difference)}"
                    + ("" if c.p_holm is None else f" ({p_value(c.p_holm)})")
                    for c in found
                )
                moved.append(f"in {cell.run} {told}")
            elif cell.changes:
                still.append(cell.run)
        if still:
            moved.append(f"no change beyond chance in {', '.join(still)}")
        if moved:
            sentences.append(f"{model}, against its own forward pass: {'; '.join(moved)}.")
    return sentences


def injection_rows(table: CrossTable) -> list[dict[str, Any]]:
    """Every metric of every cell, a row each, with its change against the model's own injection."""
    rows = []
    for cell in table.cells:
        changes = {change.metric: change for change in cell.changes}
        where = {"trained": cell.model, "run": cell.run, "native": cell.native}
        values = {name: getattr(cell, name) for name in MAPPED}
        values |= {one.name: one for one in cell.sets}
        for name, value in values.items():
            if value is not None:
                mean = value.value if isinstance(value, MetricResult) else value.mean
                rows.append({**where, "metric": name, "value": mean, "low": value.low, "high": value.high}
                            | _against_native(changes.get(name)) | {"note": ""})  # fmt: skip
        if cell.failed:
            rows.append({**where, "metric": "", "value": None, "low": None, "high": None}
                        | _against_native(None) | {"note": cell.failed})  # fmt: skip
    return rows


def _against_native(change: Any) -> dict[str, Any]:
    if change is None:
        return dict.fromkeys(("change", "change_low", "change_high", "p_holm"))
    gap = change.difference
    return {"change": gap.mean, "change_low": gap.low, "change_high": gap.high, "p_holm": change.p_holm}

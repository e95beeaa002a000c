"""What a sweep leaves beside its cells: a page, its numbers as JSON and CSV, and the figure for a paper as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit import __version__
from plaudit.evaluate.html import csv_of, data_address, rendered
from plaudit.evaluate.report import charts as plots
from plaudit.evaluate.report.charts import Chart, chart, heat_map, heat_map_size, name_of, sweep_charts, sweep_series
from plaudit.evaluate.report.text import (
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
from plaudit.evaluate.sweeps.results import CrossNumbers, CrossTable, SweepRow
from plaudit.statistics import Interval
from plaudit.storage import write_atomically, write_json

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
        two[title] = plots.lines(sweep_series(rows, metric, {}), x_label)
    tables = [_score_table(row) for row in rows]
    charts = sweep_charts(rows, {}, UTILITY, x_label)
    findings = [sweep_finding(row, UTILITY) for row in rows]
    numbers = {"kind": "score", "models": [asdict(row) for row in rows], "findings": findings}
    clips = (
        f"{rows[0].clips} prompts, the same seeds at every score; bands and brackets are 95 % intervals over prompts"
    )
    _write(folder, "Asking for a score", clips, numbers, sweep_rows(rows), settings, findings, charts, tables)
    plots.save_panels(two, folder / SWEEP_FIGURE)
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
    plots.save_panels(dict(list(draws.items())[:3]), folder / SWEEP_FIGURE, size)
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
        light=plots.LIGHT,
        dark=plots.DARK,
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


def _map(table: CrossTable, metric: str) -> plots.Draw:
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

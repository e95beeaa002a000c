"""Every chart: themes, drawing, and the charts of reports, comparisons and sweeps."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from plaudit.evaluate.metrics import lower_is_better
from plaudit.evaluate.overoptimization import Divergence
from plaudit.evaluate.pages.html import DARK, LIGHT, data_address
from plaudit.evaluate.pages.text import directed_heading, headline_metrics, in_sentence, number, span
from plaudit.statistics import LEVEL, Interval
from plaudit.storage import write_atomically

if TYPE_CHECKING:
    from plaudit.evaluate.pages.report import Curve, ReportData, ReportReliabilityBin, Results, StageRow
    from plaudit.evaluate.pages.sweep import SweepRow


Draw = Callable[[Axes], None]
WIDE, SMALL = (4.9, 3.2), (4.6, 2.6)
"""Inches: of a chart alone in its card, and of one of several side by side."""


@dataclass(frozen=True)
class Series:
    """One line with its band: a label, the number of its colour, x [N], and y with intervals [N]."""

    label: str
    colour: int
    x: list[float]
    y: list[Interval]


def save_chart(draw: Draw, path: Path, size: tuple[float, float] = WIDE) -> None:
    """Draw a chart in light colours as `path`, and in dark ones beside it as `<stem>-dark.svg`; a `.png` is light."""
    save_panels({"": draw}, path, size)


def save_panels(panels: Mapping[str, Draw], path: Path, size: tuple[float, float] = WIDE) -> None:
    """The same for a figure of charts side by side, by their titles; `size` is of each."""
    if path.suffix == ".png":
        with _style(path.stem):
            picture = io.BytesIO()
            _figure(panels, size).savefig(picture, format="png", dpi=200, metadata={"Software": None})
        return write_atomically(path, picture.getvalue())
    light = panels_svg(panels, path.stem, size)
    write_atomically(path, light)
    write_atomically(path.with_name(f"{path.stem}-dark{path.suffix}"), darkened(light))


def panels_svg(panels: Mapping[str, Draw], name: str, size: tuple[float, float] = WIDE) -> str:
    """A figure in light colours as SVG; the same drawing under the same name is the same text."""
    with _style(name):
        buffer = io.StringIO()
        _figure(panels, size).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _style(salt: str) -> AbstractContextManager[None]:
    # A stage's title may contain a dollar sign, and a fixed salt makes files reproducible.
    return matplotlib.rc_context({"svg.hashsalt": salt, "font.size": 10.0, "text.parse_math": False})


def _figure(panels: Mapping[str, Draw], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=(size[0] * len(panels), size[1]), layout="constrained", facecolor=LIGHT.card)
    for axes, (title, draw) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _dress(axes)
        draw(axes)
        if title:
            axes.set_title(title, color=LIGHT.ink, fontsize=10.5, fontweight="bold", loc="left")
    return figure


def darkened(svg: str) -> str:
    """A chart drawn in the light theme's colours, in the dark theme's."""
    swap = dict(zip(LIGHT.colours, DARK.colours, strict=True))
    return re.sub("|".join(swap), lambda match: swap[match[0]], svg)


def stage_points(rows: Sequence[StageRow], values: Sequence[Interval]) -> Draw:
    """One metric by stage: dots with intervals, each mean written beside its dot."""

    def draw(axes: Axes) -> None:
        for place, value in enumerate(values):
            colour = LIGHT.stages[place % len(LIGHT.stages)]
            axes.plot([value.low, value.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(value.mean, place, "o", color=colour, markersize=6.5)
            axes.annotate(number(value.mean), (value.mean, place), (0, 7), textcoords="offset points",
                          ha="center", color=LIGHT.ink, fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.title for row in rows], color=LIGHT.ink)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def lines(series: Sequence[Series], x_label: str) -> Draw:
    """Lines with their intervals as bands, labelled at the right end."""

    def draw(axes: Axes) -> None:
        for one in series:
            colour = LIGHT.stages[one.colour % len(LIGHT.stages)]
            low, high = [y.low for y in one.y], [y.high for y in one.y]
            axes.fill_between(one.x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(one.x, [y.mean for y in one.y], color=colour, linewidth=1.8, marker="o", markersize=3.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=all(x == int(x) for one in series for x in one.x)))
        axes.set_xlabel(x_label)
        _name_ends(axes, series)

    return draw


def training_curve(curve: Curve, colour: int) -> Draw:
    """A quantity over training updates: every value faintly, and the running mean on top."""

    def draw(axes: Axes) -> None:
        steps, values = np.array(curve.steps), np.array(curve.values)
        shade = LIGHT.stages[colour % len(LIGHT.stages)]
        axes.plot(steps, values, color=shade, alpha=0.28, linewidth=0.8)
        smooth = running_mean(values, max(1, len(values) // 30))
        axes.plot(steps, smooth, color=shade, linewidth=1.9, marker="" if len(values) > 1 else "o")
        axes.annotate(f"{smooth[-1]:.3g}", (steps[-1], smooth[-1]), (4, 0), textcoords="offset points",
                      va="center", color=shade, fontweight="bold", fontsize=9)  # fmt: skip
        low, high = np.quantile(values, [0.005, 0.995])
        room = 0.08 * (high - low) or 0.1
        axes.set_ylim(low - room, high + room)
        axes.margins(x=0.02)
        axes.set_xlabel("update")

    return draw


def reliability(bins: Sequence[ReportReliabilityBin]) -> Draw:
    """A reliability diagram: accuracy against confidence, with Wilson's 95 % intervals; the diagonal is calibrated."""

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1.0], [0.5, 1.0], color=LIGHT.faint, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate("dashed: perfect calibration", (1.0, 0.0), (-6, 8), xycoords="axes fraction",
                      textcoords="offset points", ha="right", color=LIGHT.faint, fontsize=9)  # fmt: skip
        for one in bins:
            right = binomtest(round(one.accuracy * one.count), max(one.count, 1)).proportion_ci(LEVEL, "wilson")
            axes.plot([one.confidence] * 2, [right.low, right.high], color=LIGHT.stages[1], linewidth=1.4, alpha=0.6)
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o", color=LIGHT.stages[1], markersize=5.5)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")

    return draw


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values (fewer at the start): [N] -> [N]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _dress(axes: Axes) -> None:
    axes.set_facecolor(LIGHT.card)
    axes.grid(color=LIGHT.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT.faint, length=0, labelsize=9)
    axes.xaxis.label.set_color(LIGHT.faint)
    axes.yaxis.label.set_color(LIGHT.faint)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LIGHT.grid)


def name_points(
    axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """Label points where labels overlap each other and points least; to be called last, since it fixes the limits."""
    axes.autoscale_view()
    inverse, to_axes = axes.transAxes.inverted(), axes.transData
    places = [tuple(inverse.transform(to_axes.transform(point))) for point in points]
    occupied = [(x - 0.02, y - 0.03, x + 0.02, y + 0.03) for x, y in places]
    for (x, y), name, colour in zip(places, names, colours, strict=True):
        width, height = 0.021 * len(name) + 0.01, 0.075
        boxes = []
        for right in (1, -1):
            for up in (1, -1, 2, -2, 3, -3):
                left = x + 0.02 if right > 0 else x - 0.02 - width
                low = y + up * 0.055 - height / 2
                boxes.append((left, low, left + width, low + height))
        best = min(boxes, key=lambda box: sum(_overlap(box, other) for other in occupied) + 10 * _outside(box))
        occupied.append(best)
        axes.text(best[0] + width / 2, best[1] + height / 2, name, transform=axes.transAxes, ha="center",
                  va="center", color=colour, fontweight="bold", fontsize=9, in_layout=False)  # fmt: skip


Box = tuple[float, float, float, float]


def _overlap(one: Box, other: Box) -> float:
    """The area of the intersection of two boxes (left, low, right, high)."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box) -> float:
    """The area of a box outside the axes."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, (0.0, 0.0, 1.0, 1.0))


def _name_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Label each line at its right end, spread apart where two labels would overlap."""
    low, high = axes.get_ylim()
    gap = 0.09 * (high - low)
    height = -np.inf
    for one in sorted(series, key=lambda s: s.y[-1].mean):
        height = max(one.y[-1].mean, height + gap)
        axes.annotate(one.label, (one.x[-1], height), (6, 0), textcoords="offset points", va="center",
                      color=LIGHT.stages[one.colour % len(LIGHT.stages)], fontweight="bold", fontsize=9,
                      annotation_clip=False)  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A chart on a page. svg: the inline drawing; file, name: the same in light colours for downloading.

    wide: it keeps its width on a narrow screen, where it can be scrolled.
    """

    title: str
    alt: str
    svg: Markup
    file: str
    name: str
    wide: bool = False


def chart(draw: Draw, name: str, title: str, alt: str, size: tuple[float, float] = WIDE, wide: bool = False) -> Chart:
    """Draw a chart for a page; `name` is unique on the page and the stem of the file."""
    svg = panels_svg({"": draw}, name, size)
    return Chart(title, alt, Markup(inline(svg, name, alt)), data_address("image/svg+xml", svg), f"{name}.svg", wide)


def inline(svg: str, name: str, alt: str) -> str:
    """An SVG as an element of a page, with the page's colour variables and unique ids."""
    names = ("card", "ink", "faint", "grid", *(f"stage-{place}" for place in range(len(LIGHT.stages))))
    variables = dict(zip(LIGHT.colours, names, strict=True))
    element = svg[svg.index("<svg") :].rstrip()
    element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub("|".join(variables), lambda match: f"var(--{variables[match[0]]})", element)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'


STRONGEST = 0.55
"""Opacity of the strongest cell, at which its number is readable on light and dark pages (ours)."""


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: a difference, and whether it is significant."""

    label: str
    difference: Interval
    colour: int
    established: bool = True


def forest(rows: Sequence[ForestRow], margin: float | None = None) -> Draw:
    """Differences with intervals, hollow where not significant; the margin of equivalence is a grey band."""

    def draw(axes: Axes) -> None:
        if margin is not None:
            axes.axvspan(-margin, margin, color=LIGHT.grid, alpha=0.7, linewidth=0)
        axes.axvline(0.0, color=LIGHT.faint, linewidth=1.0)
        for place, row in enumerate(rows):
            colour = LIGHT.stages[row.colour % len(LIGHT.stages)]
            gap, face = row.difference, colour if row.established else LIGHT.card
            axes.plot([gap.low, gap.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(gap.mean, place, "o", color=colour, markersize=6.5, markerfacecolor=face, markeredgewidth=1.6)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], color=LIGHT.ink)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def forest_size(rows: int) -> tuple[float, float]:
    """Inches of a forest plot."""
    return (4.6, 0.9 + 0.42 * rows)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Interval | None]],
    marked: Sequence[Sequence[bool]],
    low_is_better: bool,
    labels: tuple[str, str],
) -> Draw:
    """A table [R, C] with stronger colours for better values, None where not measured; `marked` cells are framed.

    labels: of the rows and of the columns.
    """
    means = np.array([[np.nan if cell is None else cell.mean for cell in row] for row in cells])
    quality = -means if low_is_better else means
    low, high = (np.nanmin(quality), np.nanmax(quality)) if np.isfinite(quality).any() else (0.0, 0.0)

    def draw(axes: Axes) -> None:
        for (i, j), value in np.ndenumerate(quality):
            cell, rank = cells[i][j], 0.5 if high == low else (value - low) / (high - low)
            if cell is not None:
                strength = 0.04 + (STRONGEST - 0.04) * rank
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=LIGHT.stages[1], alpha=strength, linewidth=0))
            text = "not measured" if cell is None else f"{number(cell.mean)}\n{span(cell, 2)}"
            axes.text(j, i, text, ha="center", va="center", color=LIGHT.ink, fontsize=7.5, linespacing=1.4)
            if marked[i][j]:
                axes.add_patch(
                    Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=LIGHT.ink, linewidth=1.6)
                )
        axes.set_xticks(range(len(columns)), columns, color=LIGHT.ink, rotation=20 if len(columns) > 3 else 0)
        axes.set_yticks(range(len(rows)), rows, color=LIGHT.ink)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_ylabel(labels[0])
        axes.set_xlabel(labels[1])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw


def heat_map_size(rows: int, columns: int) -> tuple[float, float]:
    """Inches of a heat map."""
    return (1.6 + 1.0 * columns, 1.1 + 0.62 * rows)


def plot_against_reward(
    labels: Sequence[str],
    reward: Sequence[Interval],
    other: Sequence[Interval],
    name: str,
    divergence: Divergence | None,
) -> Draw:
    """The path of a series through mean reward and the mean of another metric; a ring where the two diverge."""

    def draw(axes: Axes) -> None:
        points = [(x.mean, y.mean) for x, y in zip(reward, other, strict=True)]
        colours = [LIGHT.stages[place % len(LIGHT.stages)] for place in range(len(points))]
        axes.plot(*zip(*points, strict=True), color=LIGHT.faint, linewidth=1.0, zorder=1)
        for point, x, y, colour in zip(points, reward, other, colours, strict=True):
            axes.plot([x.low, x.high], [point[1]] * 2, color=colour, linewidth=1.4, alpha=0.7)
            axes.plot([point[0]] * 2, [y.low, y.high], color=colour, linewidth=1.4, alpha=0.7)
            axes.plot(*point, "o", color=colour, markersize=7, zorder=3)
        axes.set_xlabel("mean reward")
        axes.set_ylabel(name)
        axes.margins(0.12)
        if divergence is None:
            name_points(axes, points, labels, colours)
            return
        ring = points[divergence.place]
        axes.plot(*ring, "o", markersize=14, markerfacecolor="none", markeredgecolor=LIGHT.ink, zorder=4)
        label = "divergence" if divergence.established else "not significant"
        name_points(axes, [ring, *points], [label, *labels], [LIGHT.ink, *colours])

    return draw


def stage_charts(results: Results) -> list[Chart]:
    """Each metric by stage."""
    rows, charts = results.stages, []
    for key in headline_metrics(results):
        title = directed_heading(key)
        alt = f"{title} by stage with 95 % intervals; the numbers are in the table."
        charts.append(chart(stage_points(rows, [row.means[key] for row in rows]), f"stages-{key}", title, alt, SMALL))
    return charts


def change_charts(results: Results) -> list[Chart]:
    """Each metric's change from stage to stage, as a forest plot."""
    charts = []
    for key in headline_metrics(results):
        rows = [
            ForestRow(row.title, change.difference, place, change.established)
            for place, row in enumerate(results.stages)
            for change in row.changes
            if change.metric == key
        ]
        if rows:
            side = "left" if lower_is_better(key) else "right"
            title = f"Change in {in_sentence(key)} ({side} is better)"
            alt = f"{title} by stage with 95 % intervals; the numbers are in the table of changes."
            charts.append(chart(forest(rows), f"changes-{key}", title, alt, forest_size(len(rows))))
    return charts


def divergence_charts(results: Results) -> list[Chart]:
    """The path of the stages through mean reward and each other metric; empty for a single stage."""
    rows, charts = results.stages, []
    for key in headline_metrics(results) if len(rows) > 1 else []:
        if key != "reward":
            name, reward, other = in_sentence(key), [r.means["reward"] for r in rows], [r.means[key] for r in rows]
            draw = plot_against_reward([r.title for r in rows], reward, other, name, results.divergences.get(key))
            alt = "The path of the stages; the numbers are in the table."
            charts.append(chart(draw, f"reward-{key}", f"Mean reward against {name}", alt))
    return charts


def best_of_n_charts(results: Results) -> list[Chart]:
    """How each other metric changes as the best of more candidates is chosen by reward."""
    best, charts = results.best_of_n, []
    if best is None:
        return []
    for key, values in best.others.items():
        name, labels = in_sentence(key), [str(n) for n in best.counts]
        draw = plot_against_reward(labels, best.reward, values, name, best.divergences[key])
        alt = f"Mean reward and {name} of the best of N; the numbers are in report.json."
        charts.append(chart(draw, f"best-of-n-{key}", f"Best of N by reward: {name}", alt))
    return charts


def sweep_charts(
    sweeps: Sequence[SweepRow], colours: Mapping[str, int], x_label: str = "conditioning score"
) -> list[Chart]:
    """Each metric against the conditioning score, with a line per model; `colours` by model where they are given."""
    charts = []
    for key in dict.fromkeys(name for sweep in sweeps for name in (*sweep.means, *sweep.sets)):
        if series := sweep_series(sweeps, key, colours):
            title = directed_heading(key)
            alt = f"{title} by conditioning score with 95 % intervals; the numbers are in the table for download."
            charts.append(chart(lines(series, x_label), f"sweep-{key}", title, alt, SMALL))
    return charts


def sweep_series(sweeps: Sequence[SweepRow], metric: str, colours: Mapping[str, int]) -> list[Series]:
    """A line for each model that has the metric at every score."""
    series = []
    for place, sweep in enumerate(sweeps):
        values = sweep.means.get(metric) or [
            Interval(v.value, v.value if v.low is None else v.low, v.value if v.high is None else v.high)
            for v in sweep.sets.get(metric, [])
            if v.value is not None
        ]
        if values and len(values) == len(sweep.scores):
            series.append(Series(sweep.stage, colours.get(sweep.stage, place + 1), sweep.scores, values))
    return series


def curve_charts(data: ReportData) -> list[Chart]:
    """Training curves."""
    colours = {stage.title: place for place, stage in enumerate(data.stages)}
    charts = []
    for place, curve in enumerate(curve for curve in data.curves if curve.steps):
        title = f"{curve.stage}: {curve.quantity.replace('_', ' ')}"
        alt = f"{title} over {len(curve.steps)} recorded updates, ending near {curve.values[-1]:.3g}."
        draw = training_curve(curve, colours.get(curve.stage, place + 1))
        charts.append(chart(draw, f"curve-{place}", title, alt, SMALL))
    return charts


def reliability_chart(data: ReportData) -> Chart | None:
    """The reward's calibration on held-out votes, where it was tested."""
    if data.reward is None or not data.reward.bins:
        return None
    alt = "Accuracy against confidence, in bins of held-out votes."
    return chart(reliability(data.reward.bins), "reliability", "Calibration of the reward", alt)

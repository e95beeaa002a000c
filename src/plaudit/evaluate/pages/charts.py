"""Every chart: drawing, themes, and the charts of reports, comparisons and sweeps."""

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
from matplotlib import cm, image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from plaudit.evaluate.overoptimization import Divergence
from plaudit.evaluate.pages.html import DARK, LIGHT, data_address
from plaudit.evaluate.pages.text import IN_SENTENCES, better, heading, known_metrics, number, p_value, percent, span
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
    """One line with its band: a label, which stage's colour it wears, x [N], and y with intervals [N]."""

    label: str
    colour: int
    x: list[float]
    y: list[Interval]


def save_chart(draw: Draw, path: Path, size: tuple[float, float] = WIDE) -> None:
    """Draw a chart in light colours as `path`, and the same in dark ones beside it as `<stem>-dark.svg`.

    A `.png` has one appearance: its card is opaque, so that it can be read on a page of any colour.
    """
    save_panels({"": draw}, path, size)


def save_panels(panels: Mapping[str, Draw], path: Path, size: tuple[float, float] = WIDE) -> None:
    """The same for a figure of charts side by side, by their titles; `size` is of each."""
    if path.suffix == ".png":
        with _style(path.stem):
            picture = io.BytesIO()
            _drawn(panels, size).savefig(picture, format="png", dpi=200, metadata={"Software": None})
        return write_atomically(path, picture.getvalue())
    light = panels_svg(panels, path.stem, size)
    write_atomically(path, light)
    write_atomically(path.with_name(f"{path.stem}-dark{path.suffix}"), darkened(light))


def panels_svg(panels: Mapping[str, Draw], name: str, size: tuple[float, float] = WIDE) -> str:
    """A figure in light colours as SVG; the same drawing under the same name is the same text."""
    with _style(name):
        buffer = io.StringIO()
        _drawn(panels, size).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _style(salt: str) -> AbstractContextManager[None]:
    # A stage's title may hold a dollar sign, and a fixed salt makes the same chart the same file.
    return matplotlib.rc_context({"svg.hashsalt": salt, "font.size": 10.0, "text.parse_math": False})


def _drawn(panels: Mapping[str, Draw], size: tuple[float, float]) -> Figure:
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
    return re.sub("|".join(swap), lambda found: swap[found[0]], svg)


def stage_points(rows: Sequence[StageRow], values: Sequence[Interval]) -> Draw:
    """One metric by stage: a dot and its interval each, the mean written beside it."""

    def draw(axes: Axes) -> None:
        for place, value in enumerate(values):
            colour = LIGHT.stages[place % len(LIGHT.stages)]
            axes.plot([value.low, value.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(value.mean, place, "o", color=colour, markersize=6.5)
            axes.annotate(number(value.mean), (value.mean, place), (0, 7), textcoords="offset points",
                          ha="center", color=LIGHT.ink, fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.title for row in rows], color=LIGHT.ink)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def lines(series: Sequence[Series], x_label: str) -> Draw:
    """Lines with their intervals as bands, each named at its right end."""

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
    """A quantity over training steps: every value faintly, their running mean on top."""

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
    """How often the reward is right against how sure it is; on the diagonal it is as right as it says.

    The bars are Wilson's 95 % intervals of the shares.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1.0], [0.5, 1.0], color=LIGHT.faint, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate("dashed: as right as it says", (1.0, 0.0), (-6, 8), xycoords="axes fraction",
                      textcoords="offset points", ha="right", color=LIGHT.faint, fontsize=9)  # fmt: skip
        for one in bins:
            right = binomtest(round(one.accuracy * one.count), max(one.count, 1)).proportion_ci(LEVEL, "wilson")
            axes.plot([one.confidence] * 2, [right.low, right.high], color=LIGHT.stages[1], linewidth=1.4, alpha=0.6)
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o", color=LIGHT.stages[1], markersize=5.5)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share right")

    return draw


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values (fewer at the start): [N] -> [N]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def save_spectrogram(path: Path, wave: np.ndarray, rate: int, width: int = 320, height: int = 96) -> None:
    """Write a clip [T] as a small picture: time to the right, 50 Hz to 8 kHz upwards by octaves, 70 dB of range."""
    window = min(2048, len(wave))
    hop = max(1, (len(wave) - window) // max(1, width - 1))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop][:width] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # [W, F]
    frequencies = np.geomspace(50.0, min(8000.0, 0.499 * rate), height)
    bins = frequencies * window / rate
    below = np.minimum(bins.astype(int), power.shape[1] - 2)
    share = bins - below
    rows = power[:, below] * (1 - share) + power[:, below + 1] * share  # [W, H]
    level = 10.0 * np.log10(rows + 1e-12)
    shade = np.clip((level - level.max()) / 70.0 + 1.0, 0.0, 1.0)
    buffer = io.BytesIO()
    image.imsave(buffer, cm.magma(shade.T[::-1], bytes=True), format="png")
    write_atomically(path, buffer.getvalue())


def _dress(axes: Axes) -> None:
    """Grid, ticks and spines in faint colours; no box."""
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
    """Write a name beside each point, on the side where it covers least of other names and points.

    To be called last: the axes' limits must be those that stay.
    """
    axes.autoscale_view()
    inverse, to_axes = axes.transAxes.inverted(), axes.transData
    places = [tuple(inverse.transform(to_axes.transform(point))) for point in points]
    taken = [(x - 0.02, y - 0.03, x + 0.02, y + 0.03) for x, y in places]
    for (x, y), name, colour in zip(places, names, colours, strict=True):
        width, height = 0.021 * len(name) + 0.01, 0.075
        boxes = []
        for right in (1, -1):
            for up in (1, -1, 2, -2, 3, -3):
                left = x + 0.02 if right > 0 else x - 0.02 - width
                low = y + up * 0.055 - height / 2
                boxes.append((left, low, left + width, low + height))
        chosen = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken) + 10 * _outside(box))
        taken.append(chosen)
        axes.text(chosen[0] + width / 2, chosen[1] + height / 2, name, transform=axes.transAxes, ha="center",
                  va="center", color=colour, fontweight="bold", fontsize=9, in_layout=False)  # fmt: skip


Box = tuple[float, float, float, float]


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes (left, low, right, high) share."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box) -> float:
    """How much of a box lies outside the axes."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, (0.0, 0.0, 1.0, 1.0))


def _name_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Write each line's name at its right end, moved apart where two would overlap."""
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
    """A chart on a page. svg: to stand in the page; file, name: the same for downloading, in light colours.

    wide: it has small print, and keeps its width on a narrow screen, where it can be scrolled.
    """

    title: str
    alt: str
    svg: Markup
    file: str
    name: str
    wide: bool = False


def chart(draw: Draw, name: str, title: str, alt: str, size: tuple[float, float] = WIDE, wide: bool = False) -> Chart:
    """Draw a chart for a page; `name` is its file's, without suffix, and unique on the page."""
    svg = panels_svg({"": draw}, name, size)
    return Chart(title, alt, Markup(inline(svg, name, alt)), data_address("image/svg+xml", svg), f"{name}.svg", wide)


def inline(svg: str, name: str, alt: str) -> str:
    """A drawing as an element of a page: its colours those of the page, its ids unlike those of other drawings."""
    names = ("card", "ink", "faint", "grid", *(f"stage-{place}" for place in range(len(LIGHT.stages))))
    variables = dict(zip(LIGHT.colours, names, strict=True))
    element = svg[svg.index("<svg") :].rstrip()
    element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub("|".join(variables), lambda found: f"var(--{variables[found[0]]})", element)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    # What a page holds as Markup is not escaped again, so this is.
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'


STRONGEST = 0.55
"""Opacity of the most coloured cell: its number stays readable on light and on dark pages (ours)."""


@dataclass(frozen=True)
class Difference:
    """A line of a forest plot: what differs, by how much, and whether that is established."""

    label: str
    gap: Interval
    colour: int
    established: bool = True


def forest(rows: Sequence[Difference], margin: float | None = None) -> Draw:
    """Differences with their intervals, one below the other; hollow where nothing is established.

    margin: differences within it count as none, which a grey band shows.
    """

    def draw(axes: Axes) -> None:
        if margin is not None:
            axes.axvspan(-margin, margin, color=LIGHT.grid, alpha=0.7, linewidth=0)
        axes.axvline(0.0, color=LIGHT.faint, linewidth=1.0)
        for place, row in enumerate(rows):
            colour = LIGHT.stages[row.colour % len(LIGHT.stages)]
            axes.plot([row.gap.low, row.gap.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            face = colour if row.established else LIGHT.card
            axes.plot(row.gap.mean, place, "o", color=colour, markersize=6.5, markerfacecolor=face, markeredgewidth=1.6)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], color=LIGHT.ink)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def forest_size(rows: int) -> tuple[float, float]:
    """Inches of a forest plot of so many lines."""
    return (4.6, 0.9 + 0.42 * rows)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Interval | None]],
    marked: Sequence[Sequence[bool]],
    low_is_better: bool,
    labels: tuple[str, str],
) -> Draw:
    """A table [R, C] whose cells are the stronger the better, each with its number and interval; `marked` have a frame.

    labels: what the rows are and what the columns are. A cell that is None could not be measured.
    """
    means = np.array([[np.nan if cell is None else cell.mean for cell in row] for row in cells])
    worth = -means if low_is_better else means
    low, high = (np.nanmin(worth), np.nanmax(worth)) if np.isfinite(worth).any() else (0.0, 0.0)

    def draw(axes: Axes) -> None:
        for (i, j), value in np.ndenumerate(worth):
            cell, share = cells[i][j], 0.5 if high == low else (value - low) / (high - low)
            if cell is not None:
                strength = 0.04 + (STRONGEST - 0.04) * share
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=LIGHT.stages[1], alpha=strength, linewidth=0))
            told = "not measurable" if cell is None else f"{number(cell.mean)}\n{span(cell, 2)}"
            axes.text(j, i, told, ha="center", va="center", color=LIGHT.ink, fontsize=7.5, linespacing=1.4)
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
    """Inches of a heat map of so many cells."""
    return (1.6 + 1.0 * columns, 1.1 + 0.62 * rows)


def divergence_sentence(divergence: Divergence | None, labels: Sequence[str], name: str) -> str:
    """Where along a series the reward and a metric called `name` part, and how sure that is."""
    if divergence is None:
        return f"Reward and {name} do not part: nowhere does the one rise on while the other falls."
    where = labels[divergence.place]
    reach = (
        f"{labels[divergence.low]} to {labels[divergence.high]}"
        if divergence.low != divergence.high
        else labels[divergence.low]
    )
    gained = f"{number(divergence.rise.mean)} {span(divergence.rise)} up to {labels[divergence.end]}"
    lost = f"{number(divergence.loss.mean)} {span(divergence.loss)}"
    sure = "" if divergence.established else ", which is not beyond chance"
    return (
        f"Reward and {name} part at {where} (95 % interval: {reach}; they part in {percent(divergence.share)} of "
        f"resampled sets of prompts): from there reward rises by {gained} and {name} gets worse by {lost} "
        f"({p_value(divergence.p)}, corrected for choosing the points){sure}."
    )


def plot_against_reward(
    labels: Sequence[str],
    reward: Sequence[Interval],
    other: Sequence[Interval],
    name: str,
    divergence: Divergence | None,
) -> Draw:
    """The path of a series through mean reward and the mean of another metric; a ring where the two part."""

    def draw(axes: Axes) -> None:
        points = [(x.mean, y.mean) for x, y in zip(reward, other, strict=True)]
        colours = [LIGHT.stages[place % len(LIGHT.stages)] for place in range(len(points))]
        axes.plot(*zip(*points, strict=True), color=LIGHT.faint, linewidth=1.0, zorder=1)
        for point, x, y, colour in zip(points, reward, other, colours, strict=True):
            axes.plot([x.low, x.high], [point[1]] * 2, color=colour, linewidth=1.4, alpha=0.7)
            axes.plot([point[0]] * 2, [y.low, y.high], color=colour, linewidth=1.4, alpha=0.7)
            axes.plot(*point, "o", color=colour, markersize=7, zorder=3)
        axes.set_xlabel("mean reward")
        axes.set_ylabel(f"mean {name}")
        axes.margins(0.12)
        if divergence is None:
            name_points(axes, points, labels, colours)
            return
        ring = points[divergence.place]
        axes.plot(*ring, "o", markersize=14, markerfacecolor="none", markeredgecolor=LIGHT.ink, zorder=4)
        name_points(axes, [ring, *points], ["they part here", *labels], [LIGHT.ink, *colours])

    return draw


def stage_charts(results: Results, utility_name: str) -> list[Chart]:
    """Each metric by stage."""
    rows, charts = results.stages, []
    for key in known_metrics(results):
        title = heading(key, utility_name) + (" (lower is closer)" if better(key) == "lower" else "")
        alt = f"{title} by stage with 95 % intervals; the numbers are in the table."
        draw = stage_points(rows, [getattr(row, key) for row in rows])
        charts.append(chart(draw, f"stages-{key}", title, alt, SMALL))
    return charts


def change_charts(results: Results, utility_name: str) -> list[Chart]:
    """Each metric's change from stage to stage, as a forest plot."""
    charts = []
    for key in known_metrics(results):
        found = [
            Difference(row.title, change.difference, place, change.established)
            for place, row in enumerate(results.stages)
            for change in row.changes
            if change.metric == key
        ]
        if found:
            title = f"Change in {name_of(key, utility_name)}"
            title += " (left is better)" if better(key) == "lower" else " (right is better)"
            alt = f"{title} by stage with 95 % intervals; the numbers are in the table of changes."
            charts.append(chart(forest(found), f"changes-{key}", title, alt, forest_size(len(found))))
    return charts


def name_of(metric: str, utility_name: str) -> str:
    """A metric in a sentence."""
    return utility_name if metric == "utility" else IN_SENTENCES.get(metric, metric)


def watched(results: Results) -> list[str]:
    """The metrics that are held against the reward along the stages."""
    return [key for key in known_metrics(results) if key != "reward"] if len(results.stages) > 1 else []


def divergence_charts(results: Results, utility_name: str) -> list[Chart]:
    """The path of the stages through mean reward and each other metric."""
    rows, charts = results.stages, []
    for key in watched(results):
        name, reward, other = name_of(key, utility_name), [r.reward for r in rows], [getattr(r, key) for r in rows]
        draw = plot_against_reward([r.title for r in rows], reward, other, name, results.divergences.get(key))
        alt = "The path of the stages; the numbers are in the table."
        charts.append(chart(draw, f"reward-{key}", f"Mean reward against {name}", alt))
    return charts


def choice_charts(results: Results, utility_name: str) -> list[Chart]:
    """What choosing the best of N does to each other metric."""
    choice, charts = results.choice, []
    if choice is None:
        return []
    for key, values in choice.others.items():
        name = name_of(key, utility_name)
        draw = plot_against_reward(
            [str(n) for n in choice.counts], choice.reward, values, name, choice.divergences[key]
        )
        alt = f"Mean reward and {name} of the best of N; the numbers are in report.json."
        charts.append(chart(draw, f"choice-{key}", f"Best of N by reward, against {name}", alt))
    return charts


def sweep_charts(
    sweeps: Sequence[SweepRow], colours: dict[str, int], utility_name: str, x_label: str = "score asked for"
) -> list[Chart]:
    """Each metric against the score asked for, all models in one chart; `colours` of those that have one elsewhere."""
    charts = []
    others = dict.fromkeys(name for sweep in sweeps for name in sweep.sets)
    for key in ("reward", "utility", "clap", "concepts", "frechet", *others):
        if series := sweep_series(sweeps, key, colours):
            title = heading(key, utility_name) + (" (lower is closer)" if better(key) == "lower" else "")
            alt = f"{title} by score asked for, with 95 % intervals; the numbers are in the table for download."
            charts.append(chart(lines(series, x_label), f"sweep-{key}", title, alt, SMALL))
    return charts


def sweep_series(sweeps: Sequence[SweepRow], metric: str, colours: dict[str, int]) -> list[Series]:
    """One line per model that has the metric at every score, with intervals."""
    found = []
    for place, sweep in enumerate(sweeps):
        values: list[Interval] | None = getattr(sweep, metric, None)
        if metric in sweep.sets:
            values = [
                Interval(v.value, v.value if v.low is None else v.low, v.value if v.high is None else v.high)
                for v in sweep.sets[metric]
                if v.value is not None
            ]
        if values and len(values) == len(sweep.asked):
            found.append(Series(sweep.stage, colours.get(sweep.stage, place + 1), sweep.asked, values))
    return found


def curve_charts(data: ReportData) -> list[Chart]:
    """How each quantity went during training."""
    colours = {stage.title: place for place, stage in enumerate(data.stages)}
    charts = []
    for place, curve in enumerate(curve for curve in data.curves if curve.steps):
        title = f"{curve.stage}: {curve.quantity.replace('_', ' ')}"
        alt = f"{title} over {len(curve.steps)} recorded updates, ending near {curve.values[-1]:.3g}."
        draw = training_curve(curve, colours.get(curve.stage, place + 1))
        charts.append(chart(draw, f"curve-{place}", title, alt, SMALL))
    return charts


def reliability_chart(data: ReportData) -> Chart | None:
    """How right the reward is against how sure it is."""
    if data.reward is None or not data.reward.bins:
        return None
    alt = "Share of votes predicted against confidence, in bins of held-out votes."
    return chart(reliability(data.reward.bins), "reliability", "Is the reward as right as it is sure?", alt)

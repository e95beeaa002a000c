"""Figures of many numbers at once: differences with their intervals, and tables as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from plaudit.evaluate.report.plots import LIGHT, Draw
from plaudit.evaluate.report.wording import number, span
from plaudit.evaluate.statistics import Interval

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

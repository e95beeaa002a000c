"""The watch over the reward along a series, in words and as a curve."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from plaudit.evaluate.overoptimization import Parting
from plaudit.evaluate.report.plots import LIGHT, Draw, name_points
from plaudit.evaluate.report.wording import number, p_value, percent, span
from plaudit.evaluate.statistics import Interval


def parting_sentence(parting: Parting | None, labels: Sequence[str], name: str) -> str:
    """Where along a series the reward and a metric called `name` part, and how sure that is."""
    if parting is None:
        return f"Reward and {name} do not part: nowhere does the one rise on while the other falls."
    where = labels[parting.place]
    reach = f"{labels[parting.low]} to {labels[parting.high]}" if parting.low != parting.high else labels[parting.low]
    gained = f"{number(parting.rise.mean)} {span(parting.rise)} up to {labels[parting.end]}"
    lost = f"{number(parting.loss.mean)} {span(parting.loss)}"
    sure = "" if parting.established else ", which is not beyond chance"
    return (
        f"Reward and {name} part at {where} (95 % interval: {reach}; they part in {percent(parting.share)} of "
        f"resampled sets of prompts): from there reward rises by {gained} and {name} gets worse by {lost} "
        f"({p_value(parting.p)}, corrected for choosing the points){sure}."
    )


def against_reward(
    labels: Sequence[str], reward: Sequence[Interval], other: Sequence[Interval], name: str, parting: Parting | None
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
        if parting is None:
            name_points(axes, points, labels, colours)
            return
        ring = points[parting.place]
        axes.plot(*ring, "o", markersize=14, markerfacecolor="none", markeredgecolor=LIGHT.ink, zorder=4)
        name_points(axes, [ring, *points], ["they part here", *labels], [LIGHT.ink, *colours])

    return draw

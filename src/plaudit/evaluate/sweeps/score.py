"""The sweep over the score asked for: does the reward follow, and what does it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.changes import SEED, clip_values
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.statistics import Interval, bootstrap_mean, bootstrap_statistic, spearman


@dataclass(frozen=True)
class Sweep:
    """One model asked for several scores, with the same prompts and seeds at each: asked [S], points [S].

    unjudged: scores whose clips nobody could judge, and why; they are in none of the numbers.
    """

    stage: str
    asked: list[float]
    points: list[StageScores]
    unjudged: dict[float, str] = field(default_factory=dict)

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
    unjudged: dict[float, str] = field(default_factory=dict)


def sweep_row(sweep: Sweep) -> SweepRow:
    """The numbers of a sweep; RunError where fewer than two of its points can be judged."""
    if len(sweep.asked) != len(sweep.points) or not sweep.judged:
        reasons = "".join(f"; at {score:g}: {reason}" for score, reason in sweep.unjudged.items())
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
        clap=[bootstrap_mean(point.clap, SEED) for point in sweep.points],
        frechet=[point.frechet_interval for point in sweep.points],
        utility=None if utilities is None else _means(utilities),
        concepts=None if (found := _values(sweep.points, "concepts")) is None else _means(found),
        sets=_sets(sweep.points),
        follows=_follows(sweep.asked, rewards),
        truth_follows=None if utilities is None else _follows(sweep.asked, utilities),
        spread=float(means.max() - means.min()),
        clips=rewards.shape[1],
        unjudged=dict(sweep.unjudged),
    )


def _values(points: Sequence[StageScores], metric: str) -> np.ndarray | None:
    """A metric [S, B] of the clips that have it at every point; None where not every point has it."""
    known = [values for point in points if (values := clip_values(point, metric)) is not None]
    if len(known) < len(points):
        return None
    table = np.stack(known)
    return table[:, ~np.isnan(table).any(axis=0)]


def _means(values: np.ndarray) -> list[Interval]:
    return [bootstrap_mean(row, SEED) for row in values]


def _sets(points: Sequence[StageScores]) -> dict[str, list[MetricResult]]:
    found: dict[str, list[MetricResult]] = {}
    for point in points:
        for one in point.sets:
            found.setdefault(one.name, []).append(one)
    return found


def _follows(asked: Sequence[float], values: np.ndarray) -> Interval:
    """The rank correlation of the score asked for [S] and the mean of values [S, B], over resampled prompts."""
    return bootstrap_statistic(lambda rows: spearman(asked, values[:, rows].mean(axis=1)), values.shape[1], SEED)

"""The numbers of sweeps over the conditioning score and over injections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.changes import CHANGE_SEED, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.results_table import MetricResult
from plaudit.statistics import Interval, bootstrap_mean, bootstrap_statistic, spearman


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

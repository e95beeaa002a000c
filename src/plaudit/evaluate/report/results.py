"""From scores to the numbers a report states. Page, table and JSON all read these, so that they cannot disagree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.evaluator import StageScores, frechet_difference
from plaudit.evaluate.overoptimization import Parting, find_parting, paid_for_reward
from plaudit.evaluate.report.data import ReportData, RewardQuality, StageResult, Sweep
from plaudit.evaluate.statistics import (
    Interval,
    bca_mean,
    bootstrap_mean,
    bootstrap_statistic,
    differences,
    holm,
    paired_difference,
    spearman,
    win_rate,
    without_spread,
)

SEED = 0
"""Of every bootstrap here: the same scores give the same report."""


@dataclass(frozen=True)
class Change:
    """One metric against the previous stage. The p-values are None for a distance, which no clip has by itself.

    p_holm is the paired t-test's, corrected for all tests of the table together.
    """

    metric: str
    difference: Interval
    p_t: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None

    @property
    def established(self) -> bool:
        """Whether the interval excludes zero and, where there is a test, the corrected p-value is below 0.05."""
        return self.difference.excludes_zero and (self.p_holm is None or self.p_holm < 0.05)


@dataclass(frozen=True)
class StageRow:
    """The numbers of one stage. What has no value (no truth, no previous stage) is None or empty.

    agreement: rank correlation over clips of reward and true utility; it falls where the reward is exploited.
    paid_for_reward: the metrics that got worse while reward rose, both beyond chance.
    """

    key: str
    title: str
    note: str
    clips: int
    reward: Interval
    clap: Interval
    frechet: Interval
    utility: Interval | None
    agreement: Interval | None
    wins_previous: Interval | None
    wins_baseline: Interval | None
    changes: list[Change]
    paid_for_reward: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SweepRow:
    """The numbers of one sweep; lists are by score asked for.

    follows, truth_follows: rank correlation of the score asked for with mean reward, and with mean true utility.
    """

    stage: str
    asked: list[float]
    reward: list[Interval]
    clap: list[Interval]
    frechet: list[Interval]
    utility: list[Interval] | None
    follows: Interval
    truth_follows: Interval | None
    clips: int


@dataclass(frozen=True)
class Results:
    """All numbers of a report.

    overall: the last stage against the first; without tests, since those are for the questions asked stage by stage.
    partings: where reward and another metric part along the stages, by metric; None where they do not.
    wins_by: the metric that decides which of two clips wins; tests: how many p-values were corrected together.
    """

    stages: list[StageRow]
    overall: list[Change]
    sweeps: list[SweepRow]
    wins_by: str
    tests: int
    reward: RewardQuality | None
    partings: dict[str, Parting | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return asdict(self)


def summarize(data: ReportData) -> Results:
    """Work out every number of a report; RunError where stages were not evaluated on the same prompts."""
    if not data.stages:
        raise RunError("a report needs at least one evaluated stage; run an evaluation first")
    prompts = data.stages[0].scores.prompts
    for stage in data.stages:
        if stage.scores.prompts != prompts:
            raise RunError(f"stage {stage.title} was evaluated on other prompts than the first; evaluate it again")
    with_truth = all(stage.scores.utility is not None for stage in data.stages)
    rows = [
        _stage_row(stage, data.stages[i - 1] if i else None, data.stages[0], with_truth)
        for i, stage in enumerate(data.stages)
    ]
    rows, tests = _correct(rows)
    first, last = data.stages[0].scores, data.stages[-1].scores
    return Results(
        stages=rows,
        overall=[
            Change(change.metric, change.difference)
            for change in (_changes(last, first, with_truth) if len(data.stages) > 2 else [])
        ],
        sweeps=[_sweep_row(sweep) for sweep in data.sweeps],
        wins_by="utility" if with_truth else "reward",
        tests=tests,
        reward=data.reward,
        partings=_partings(data.stages, with_truth),
    )


def _partings(stages: list[StageResult], with_truth: bool) -> dict[str, Parting | None]:
    """Along the stages, for metrics that every clip has; two points are no series."""
    if len(stages) < 3:
        return {}
    reward = np.stack([stage.scores.reward for stage in stages])
    others = {"clap": [stage.scores.clap for stage in stages]}
    if with_truth:
        others["utility"] = [stage.scores.utility for stage in stages if stage.scores.utility is not None]
    return {name: find_parting(name, reward, np.stack(values), SEED) for name, values in others.items()}


def _stage_row(
    stage: StageResult, previous: StageResult | None, baseline: StageResult, with_truth: bool
) -> StageRow:
    scores = stage.scores
    utility = scores.utility if with_truth else None

    def wins(other: StageResult) -> Interval:
        mine, theirs = _deciding(scores, with_truth), _deciding(other.scores, with_truth)
        return win_rate(mine, theirs, SEED)

    return StageRow(
        key=stage.key,
        title=stage.title,
        note=stage.note,
        clips=len(scores),
        reward=bootstrap_mean(scores.reward, SEED),
        clap=bootstrap_mean(scores.clap, SEED),
        frechet=scores.frechet_interval,
        utility=None if utility is None else bootstrap_mean(utility, SEED),
        agreement=None if utility is None else _agreement(scores.reward, utility),
        wins_previous=None if previous is None else wins(previous),
        wins_baseline=None if previous is None else wins(baseline),
        changes=[] if previous is None else _changes(scores, previous.scores, with_truth),
    )


def _deciding(scores: StageScores, with_truth: bool) -> np.ndarray:
    return scores.utility if with_truth and scores.utility is not None else scores.reward


def _agreement(reward: np.ndarray, utility: np.ndarray) -> Interval:
    return bootstrap_statistic(lambda rows: spearman(reward[rows], utility[rows]), len(reward), SEED)


def _changes(scores: StageScores, previous: StageScores, with_truth: bool) -> list[Change]:
    pairs = {"reward": (scores.reward, previous.reward), "clap": (scores.clap, previous.clap)}
    if with_truth and scores.utility is not None and previous.utility is not None:
        pairs["utility"] = (scores.utility, previous.utility)
    changes = []
    for metric, (now, before) in pairs.items():
        gaps = differences(now, before)
        if without_spread(gaps) and abs(gaps[0]) > 1e-12:
            changes.append(Change(metric, bca_mean(gaps, SEED)))  # no test says anything about a constant
            continue
        paired = paired_difference(now, before, SEED)
        changes.append(Change(metric, paired.difference, paired.p_t, paired.p_wilcoxon))
    changes.append(Change("frechet", frechet_difference(scores, previous)))
    return changes


def _correct(rows: list[StageRow]) -> tuple[list[StageRow], int]:
    """The rows with Holm's correction over every paired t-test in them, and how many tests those are."""
    corrected = iter(holm([c.p_t for row in rows for c in row.changes if c.p_t is not None]))
    finished = [
        replace(row, changes=[c if c.p_t is None else replace(c, p_holm=next(corrected)) for c in row.changes])
        for row in rows
    ]
    finished = [replace(row, paid_for_reward=paid_for_reward(row.changes)) for row in finished]
    return finished, sum(c.p_t is not None for row in rows for c in row.changes)


def _sweep_row(sweep: Sweep) -> SweepRow:
    if len(sweep.asked) != len(sweep.points) or len(sweep.points) < 2:
        raise RunError(f"the sweep of {sweep.stage} has {len(sweep.points)} points for {len(sweep.asked)} scores")
    rewards = np.stack([point.reward for point in sweep.points])  # [S, B]
    known = [point.utility for point in sweep.points if point.utility is not None]
    utilities = np.stack(known) if len(known) == len(sweep.points) else None  # [S, B]
    return SweepRow(
        stage=sweep.stage,
        asked=list(sweep.asked),
        reward=[bootstrap_mean(row, SEED) for row in rewards],
        clap=[bootstrap_mean(point.clap, SEED) for point in sweep.points],
        frechet=[point.frechet_interval for point in sweep.points],
        utility=None if utilities is None else [bootstrap_mean(row, SEED) for row in utilities],
        follows=_follows(sweep.asked, rewards),
        truth_follows=None if utilities is None else _follows(sweep.asked, utilities),
        clips=rewards.shape[1],
    )


def _follows(asked: list[float], values: np.ndarray) -> Interval:
    """The rank correlation of the score asked for [S] and the mean of values [S, B], over resampled prompts."""
    return bootstrap_statistic(lambda rows: spearman(asked, values[:, rows].mean(axis=1)), values.shape[1], SEED)

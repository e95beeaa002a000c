"""From scores to the numbers a report states. Page, table and JSON all read these, so that they cannot disagree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.changes import CLIP_METRICS, SEED, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.overoptimization import Parting, find_parting, paid_for_reward
from plaudit.evaluate.report.choosing import ChoiceRow, summarize_choice
from plaudit.evaluate.report.data import ReportData, RewardQuality, StageResult
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.statistics import Interval, bootstrap_mean, bootstrap_statistic, spearman, win_rate
from plaudit.evaluate.sweeps.score import SweepRow, sweep_row


@dataclass(frozen=True)
class StageRow:
    """The numbers of one stage. What has no value (no truth, no previous stage) is None or empty.

    agreement: rank correlation over clips of reward and true utility; it falls where the reward is exploited.
    concepts: share of the prompts' concepts that are heard. sets: further metrics of the clips as a set.
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
    concepts: Interval | None = None
    sets: list[MetricResult] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """All numbers of a report.

    overall: the last stage against the first; without tests, since those are for the questions asked stage by stage.
    partings: where reward and another metric part along the stages, by metric; None where they do not.
    choice: what choosing the best of N does; None where there are no candidates.
    wins_by: the metric that decides which of two clips wins; tests: how many p-values were corrected together.
    metrics: those that the clips of every stage have by themselves.
    """

    stages: list[StageRow]
    overall: list[Change]
    sweeps: list[SweepRow]
    wins_by: str
    tests: int
    reward: RewardQuality | None
    partings: dict[str, Parting | None] = field(default_factory=dict)
    choice: ChoiceRow | None = None
    metrics: tuple[str, ...] = CLIP_METRICS

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
    scores = [stage.scores for stage in data.stages]
    known = [metric for metric in CLIP_METRICS if all(clip_values(one, metric) is not None for one in scores)]
    rows = [_stage_row(stage, scores[0], known) for stage in data.stages]
    groups, tests = corrected([changes_between(now, before, known) for before, now in pairwise(scores)])
    for place, changes in enumerate(groups, start=1):
        wins = _wins(scores[place], scores[place - 1], known)
        rows[place] = replace(
            rows[place], changes=changes, paid_for_reward=paid_for_reward(changes), wins_previous=wins
        )
    overall = changes_between(scores[-1], scores[0], known) if len(scores) > 2 else []
    return Results(
        stages=rows,
        overall=[Change(change.metric, change.difference) for change in overall],
        sweeps=[sweep_row(sweep) for sweep in data.sweeps if sweep.judged],
        wins_by="utility" if "utility" in known else "reward",
        tests=tests,
        reward=data.reward,
        partings=_partings(scores, known),
        choice=None if data.choice is None else summarize_choice(data.choice),
        metrics=tuple(known),
    )


def _partings(stages: list[StageScores], known: list[str]) -> dict[str, Parting | None]:
    """Along the stages, for metrics that every clip has; two points are no series."""
    if len(stages) < 3:
        return {}
    found = {}
    for metric in known:
        if metric != "reward":
            values = np.stack([getattr(stage, metric) for stage in stages])  # [S, B]
            there = ~np.isnan(values).any(axis=0)
            reward = np.stack([stage.reward for stage in stages])
            if there.sum() > 1:
                found[metric] = find_parting(metric, reward[:, there], values[:, there], SEED)
    return found


def _stage_row(stage: StageResult, baseline: StageScores, known: list[str]) -> StageRow:
    """A stage by itself and against the baseline; what came before it is not yet known."""
    scores = stage.scores
    values = {name: getattr(scores, name) for name in known}
    means = {name: bootstrap_mean(found[~np.isnan(found)], SEED) for name, found in values.items()}
    return StageRow(
        key=stage.key,
        title=stage.title,
        note=stage.note,
        clips=len(scores),
        reward=means["reward"],
        clap=means["clap"],
        frechet=scores.frechet_interval,
        utility=means.get("utility"),
        agreement=_agreement(scores) if "utility" in known else None,
        wins_previous=None,
        wins_baseline=None if scores is baseline else _wins(scores, baseline, known),
        changes=[],
        concepts=means.get("concepts"),
        sets=scores.sets,
    )


def _wins(scores: StageScores, other: StageScores, known: list[str]) -> Interval:
    """By true utility where that is known, else by reward."""
    metric = "utility" if "utility" in known else "reward"
    return win_rate(getattr(scores, metric), getattr(other, metric), SEED)


def _agreement(scores: StageScores) -> Interval:
    reward, utility = scores.reward, scores.utility
    assert utility is not None
    return bootstrap_statistic(lambda rows: spearman(reward[rows], utility[rows]), len(reward), SEED)

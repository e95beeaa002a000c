"""The data of a report, and the numbers that page, tables and JSON state."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.changes import CHANGE_SEED, CLIP_METRICS, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.overoptimization import Divergence, best_of_n, find_divergence, regressions_under_reward
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.sweeps.results import Sweep, SweepRow, sweep_row
from plaudit.statistics import Array, Interval, bootstrap_mean, bootstrap_statistic, spearman, win_rate


@dataclass(frozen=True)
class RunFacts:
    """What was run, and on what.

    name: of the run, the page's title.
    description: one or two sentences for people who did not start it; may be empty.
    recipe: the resolved recipe as YAML.
    finished: when, as text ("2025-05-01 14:03 UTC").
    seconds: of wall-clock time, all stages together, sessions added up.
    peak_memory: bytes, the most that the run held at once; None where it was not measured.
    machine: what it ran on, in the order shown ({"processor": ..., "cores": ..., "memory": ...}).
    versions: of the software ({"plaudit": ..., "python": ..., "torch": ...}).
    step_seconds: wall-clock seconds by step of the run, in the order done; may be empty.
    folder: the run folder's absolute path; empty where there is none.
    """

    name: str
    recipe: str
    finished: str
    seconds: float
    description: str = ""
    peak_memory: int | None = None
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    step_seconds: dict[str, float] = field(default_factory=dict)
    folder: str = ""


@dataclass(frozen=True)
class StageResult:
    """One row of the table: a model and the scores of what it made of the held-out prompts.

    key: short, unique and safe in a file name ("sft"); title: for people ("SFT").
    scores: on the same prompts and seeds as every other stage.
    note: one sentence on how the clips were sampled ("score 1.5, guidance 4"); may be empty.
    clips: the folder of its clips, `0000.wav` for the first prompt and so on; None where they were not kept.
    model: the absolute path of the model folder that generates such clips; None for a row that is no model's own.
    options: what `plaudit generate` needs besides the model to generate such clips.
    """

    key: str
    title: str
    scores: StageScores
    note: str = ""
    clips: Path | None = None
    model: Path | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """How one quantity went during the training of one stage: steps [N] and values [N]."""

    stage: str
    quantity: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Sample:
    """A held-out prompt to listen to: its row in every stage's scores, and the clip of each stage by stage key.

    truth: what the prompt describes, by kind ({"genre": "house"}); empty where that is not known.
    """

    row: int
    audio: dict[str, Path]
    truth: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BestOfN:
    """Candidates [P, M] of the same prompts: their rewards, and what other metrics say of them, by name.

    source: one phrase on where they come from ("candidates of preference tuning").
    """

    source: str
    reward: Array
    others: dict[str, Array]


@dataclass(frozen=True)
class ReportReliabilityBin:
    """Pairs whose margins are alike: how sure the reward was of them on average, how often right, and how many."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class RewardQuality:
    """How well the reward predicts held-out votes.

    accuracy, accuracy_low, accuracy_high: share of votes (ties left out) predicted, with its 95 % interval.
    ceiling: what knowing the true utility would reach on the same votes; None where that is unknown.
    ece: expected calibration error over `bins`; votes: how many held-out votes without ties.
    source: one phrase on where the votes come from ("simulated listeners").
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    ece: float
    votes: int
    bins: list[ReportReliabilityBin]
    ceiling: float | None = None
    source: str = ""


@dataclass(frozen=True)
class CorpusFacts:
    """What the models learned from.

    kind: one phrase ("synthetic pieces of the synthetic world"); clips: how many were used, by split.
    seconds: length of one clip; quarantined: how many were skipped, by reason.
    flaw_shares: share of clips with each known flaw, in [0, 1]; empty where the truth is unknown.
    """

    kind: str
    clips: dict[str, int]
    seconds: float
    quarantined: dict[str, int] = field(default_factory=dict)
    flaw_shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    stages: in the order trained, the baseline first; at least one.
    utility_name: what the true utility is called on the page.
    coverage_scale: the concept coverage of right clips, and that of clips of other prompts, where they are known.
    """

    run: RunFacts
    stages: list[StageResult]
    corpus: CorpusFacts | None = None
    reward: RewardQuality | None = None
    curves: list[Curve] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    choice: BestOfN | None = None
    utility_name: str = "true utility"
    coverage_scale: tuple[float, float] | None = None


def read_curves(metrics: Path, stage: str, quantities: Sequence[str] = ("loss",)) -> list[Curve]:
    """The curves of the named quantities in a `metrics.jsonl` of rows {"step": ..., "loss": ...}.

    A step written twice (a run that was killed and continued) counts as written last; a torn last line is left out;
    a quantity that no row holds gives no curve. RunError where any other line is not a row.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[int, float]] = {quantity: {} for quantity in quantities}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise RunError(f"{metrics}, line {number} is not a row of metrics; train the stage again") from None
        for quantity, values in found.items():
            value = row.get(quantity)
            if value is not None and math.isfinite(value):
                values[step] = float(value)
    return [
        Curve(stage, quantity, sorted(values), [values[step] for step in sorted(values)])
        for quantity, values in found.items()
        if values
    ]


BEST_OF_N_SEED = 0


@dataclass(frozen=True)
class BestOfNRow:
    """Means over prompts of the best of n, for each n of counts: of the reward that chooses, and of other metrics.

    partings: where reward and the metric part as n grows; None where they do not.
    """

    source: str
    prompts: int
    counts: list[int]
    reward: list[Interval]
    others: dict[str, list[Interval]]
    divergences: dict[str, Divergence | None]

    @property
    def labels(self) -> list[str]:
        """What each point is called."""
        return [f"best of {n}" if n > 1 else "any one" for n in self.counts]


def summarize_best_of_n(choice: BestOfN) -> BestOfNRow:
    """Expected values over all ways to draw n of the candidates; n doubles up to all of them."""
    candidates = choice.reward.shape[1]
    counts = sorted({*(2**power for power in range(candidates.bit_length())), candidates})
    counts = [n for n in counts if n <= candidates]
    reward = best_of_n(choice.reward, choice.reward, counts)
    others = {name: best_of_n(choice.reward, values, counts) for name, values in choice.others.items()}
    return BestOfNRow(
        source=choice.source,
        prompts=len(choice.reward),
        counts=counts,
        reward=[bootstrap_mean(point, BEST_OF_N_SEED) for point in reward],
        others={name: [bootstrap_mean(point, BEST_OF_N_SEED) for point in series] for name, series in others.items()},
        divergences={name: find_divergence(name, reward, series, BEST_OF_N_SEED) for name, series in others.items()},
    )


@dataclass(frozen=True)
class StageRow:
    """The numbers of one stage. What has no value (no truth, no previous stage) is None or empty.

    agreement: rank correlation over clips of reward and true utility; it falls where the reward is exploited.
    concepts: share of the prompts' concepts that are heard. sets: further metrics of the clips as a set.
    regressions_under_reward: the metrics that got worse while reward rose, both beyond chance.
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
    regressions_under_reward: list[str] = field(default_factory=list)
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
    divergences: dict[str, Divergence | None] = field(default_factory=dict)
    choice: BestOfNRow | None = None
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
            rows[place], changes=changes, regressions_under_reward=regressions_under_reward(changes), wins_previous=wins
        )
    overall = changes_between(scores[-1], scores[0], known) if len(scores) > 2 else []
    return Results(
        stages=rows,
        overall=[Change(change.metric, change.difference) for change in overall],
        sweeps=[sweep_row(sweep) for sweep in data.sweeps if sweep.judged],
        wins_by="utility" if "utility" in known else "reward",
        tests=tests,
        reward=data.reward,
        divergences=_divergences(scores, known),
        choice=None if data.choice is None else summarize_best_of_n(data.choice),
        metrics=tuple(known),
    )


def _divergences(stages: list[StageScores], known: list[str]) -> dict[str, Divergence | None]:
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
                found[metric] = find_divergence(metric, reward[:, there], values[:, there], CHANGE_SEED)
    return found


def _stage_row(stage: StageResult, baseline: StageScores, known: list[str]) -> StageRow:
    """A stage by itself and against the baseline; what came before it is not yet known."""
    scores = stage.scores
    values = {name: getattr(scores, name) for name in known}
    means = {name: bootstrap_mean(found[~np.isnan(found)], CHANGE_SEED) for name, found in values.items()}
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
    return win_rate(getattr(scores, metric), getattr(other, metric), CHANGE_SEED)


def _agreement(scores: StageScores) -> Interval:
    reward, utility = scores.reward, scores.utility
    assert utility is not None
    return bootstrap_statistic(lambda rows: spearman(reward[rows], utility[rows]), len(reward), CHANGE_SEED)

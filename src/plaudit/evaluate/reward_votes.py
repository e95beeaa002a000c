"""How well a reward predicts votes: overall, per source, per pair of systems, and between systems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from plaudit.assets import write_json
from plaudit.evaluate.report.data import ReliabilityBin
from plaudit.evaluate.report.plots import reliability, save_chart
from plaudit.evaluate.statistics import Array, Interval, bootstrap_mean, bootstrap_replicates, percentile_interval
from plaudit.evaluate.statistics import spearman as rank_correlation
from plaudit.reward.metrics import RewardMetrics, correct, reward_metrics
from plaudit.reward.scored_votes import ScoredVote

TIE = 0.5


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on the `decided` of `votes` votes of a source or a pair of systems; None where all are ties."""

    name: str
    votes: int
    decided: int
    accuracy: Interval | None


@dataclass(frozen=True)
class SystemFigures:
    """A system against others: clips compared, their mean reward, and the share of votes it won, a tie being half."""

    name: str
    votes: int
    reward: Interval
    win_rate: Interval


@dataclass(frozen=True)
class MarginFigures:
    """Of |score(A) - score(B)|: mean and quartiles; and of the margin itself, the mean, which leans to no side."""

    mean: float
    absolute_mean: float
    quartiles: tuple[float, float, float]


@dataclass(frozen=True)
class RewardEvaluation:
    """A reward on votes; intervals are 95 % bootstrap over votes.

    spearman: between systems' mean rewards and win rates, None for fewer than three systems. same_system: votes between
    two clips of one system. They count for accuracy, but say nothing between systems: they are in no pair, and in no
    system's figures.
    """

    overall: RewardMetrics
    sources: list[GroupAccuracy]
    pairs: list[GroupAccuracy]
    systems: list[SystemFigures]
    spearman: Interval | None
    margins: MarginFigures
    same_system: int


def evaluate_votes(votes: Sequence[ScoredVote], seed: int = 0) -> RewardEvaluation:
    """All figures of scored votes; VoteError where every vote is a tie.

    A vote without the names of both systems counts in no figure of systems.
    """
    margins = torch.tensor([vote.score_a - vote.score_b for vote in votes], dtype=torch.float64)
    targets = torch.tensor([vote.target for vote in votes], dtype=torch.float64)
    overall = reward_metrics(margins, targets, seed)
    absolute = margins.abs()
    known = [vote for vote in votes if vote.system_a and vote.system_b]
    between = [vote for vote in known if vote.system_a != vote.system_b]
    quartiles = torch.quantile(absolute, torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return RewardEvaluation(
        overall=overall,
        sources=_groups(votes, lambda vote: vote.source, seed),
        pairs=_groups(between, lambda vote: " - ".join(sorted((vote.system_a, vote.system_b))), seed),
        systems=_systems(between, seed),
        spearman=_rank_agreement(between, seed),
        margins=MarginFigures(margins.mean().item(), absolute.mean().item(), tuple(quartiles)),
        same_system=len(known) - len(between),
    )


def save_evaluation(evaluation: RewardEvaluation, folder: Path) -> None:
    """Write `evaluation.json` and the reliability diagram: `reliability.svg`, `reliability-dark.svg` and, on a light
    card of its own, `reliability.png`."""
    bins = [ReliabilityBin(b.confidence, b.accuracy, b.votes) for b in evaluation.overall.reliability]
    for suffix in (".svg", ".png"):
        save_chart(reliability(bins), folder / f"reliability{suffix}")
    write_json(folder / "evaluation.json", asdict(evaluation))


def _groups(votes: Sequence[ScoredVote], named: Callable[[ScoredVote], str], seed: int) -> list[GroupAccuracy]:
    """Accuracy of the votes by name, the most numerous first."""
    members: dict[str, list[ScoredVote]] = defaultdict(list)
    for vote in votes:
        members[named(vote)].append(vote)
    found = []
    for name, own in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        margins = torch.tensor([vote.score_a - vote.score_b for vote in own], dtype=torch.float64)
        targets = torch.tensor([vote.target for vote in own])
        decided = sum(vote.target != TIE for vote in own)
        accuracy = bootstrap_mean(correct(margins, targets).numpy(), seed) if decided else None
        found.append(GroupAccuracy(name, len(own), decided, accuracy))
    return found


def _systems(between: Sequence[ScoredVote], seed: int) -> list[SystemFigures]:
    """Every system's figures, the highest mean reward first."""
    rewards, wins = defaultdict(list), defaultdict(list)
    for vote in between:
        rewards[vote.system_a].append(vote.score_a)
        rewards[vote.system_b].append(vote.score_b)
        wins[vote.system_a].append(vote.target)
        wins[vote.system_b].append(1.0 - vote.target)
    found = [
        SystemFigures(name, len(rewards[name]), bootstrap_mean(rewards[name], seed), bootstrap_mean(wins[name], seed))
        for name in rewards
    ]
    return sorted(found, key=lambda figures: -figures.reward.mean)


def _rank_agreement(between: Sequence[ScoredVote], seed: int) -> Interval | None:
    """Spearman's correlation of mean reward and win rate over systems; votes are resampled."""
    names = sorted({name for vote in between for name in (vote.system_a, vote.system_b)})
    if len(names) < 3:
        return None
    place = {name: index for index, name in enumerate(names)}
    systems = np.array([[place[vote.system_a], place[vote.system_b]] for vote in between])  # [N, 2]
    scores = np.array([[vote.score_a, vote.score_b] for vote in between])
    wins = np.array([[vote.target, 1.0 - vote.target] for vote in between])

    def agreement(rows: NDArray[np.int64]) -> float:
        own = systems[rows].ravel()
        seen = np.bincount(own, minlength=len(names))
        there = seen > 0
        means: list[Array] = [
            np.bincount(own, values[rows].ravel(), len(names))[there] / seen[there] for values in (scores, wins)
        ]
        return rank_correlation(*means)

    return percentile_interval(agreement(np.arange(len(between))), bootstrap_replicates(agreement, len(between), seed))

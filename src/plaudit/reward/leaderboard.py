"""Strengths of systems by votes, with intervals over listeners, and the ranks that these leave open.

Strengths are on the logit scale: between systems whose strengths differ by d, the stronger one wins a fraction
1 / (1 + exp(-d)) of the votes that are not ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from plaudit.reward.bradley_terry import PRIOR_SD, Ties, fit_bradley_terry
from plaudit.statistics import Array, Interval, expanded

RESAMPLES = 1000
"""Of a bootstrap interval."""


class Comparison(Protocol):
    """One listener's answer about clips of two systems, such as a `Vote`."""

    @property
    def system_a(self) -> str: ...
    @property
    def system_b(self) -> str: ...
    @property
    def winner(self) -> str: ...
    @property
    def listener(self) -> str: ...


@dataclass(frozen=True)
class Strength:
    """A system's strength with its 95 % interval, and ranks: places that its interval leaves open, best first."""

    system: str
    strength: Interval
    rank: int
    ranks: tuple[int, int]
    votes: int

    @property
    def arena_score(self) -> float:
        """On the scale of Elo ratings around 1000, as arenas publish it."""
        return arena_scale(self.strength.mean)


def arena_scale(strength: float) -> float:
    """A strength on the scale of Elo ratings around 1000, in which 400 points are odds of 10."""
    return 1000.0 + 400.0 / math.log(10) * strength


@dataclass(frozen=True)
class Board:
    """Systems by strength, the strongest first.

    resampled: what the intervals are over, "listeners" where there are at least two, else "votes".
    groups: sets of systems that were compared with one another, directly or not; with more than one, strengths of
    different groups cannot be compared, and only the prior relates them.
    tie: the logarithm of Davidson's parameter, None without ties.
    """

    strengths: list[Strength]
    votes: int
    ties: int
    both_bad: int
    resampled: Literal["listeners", "votes"]
    groups: list[list[str]]
    tie: float | None


def bradley_terry(
    answers: Sequence[Comparison],
    tie_model: Ties = "davidson",
    prior_sd: float = PRIOR_SD,
    seed: int = 0,
    resamples: int = RESAMPLES,
    systems: Sequence[str] = (),
) -> Board:
    """Strengths of all systems of the answers with bootstrap intervals over listeners, or over votes where there are
    fewer than two.

    systems: further ones, which have no answers yet. Percentile intervals are widened for few listeners as
    plaudit.statistics.expanded says.
    """
    names = sorted({name for x in answers for name in (x.system_a, x.system_b)} | set(systems))
    decisive = [x for x in answers if x.winner != "both_bad"]
    both_bad = len(answers) - len(decisive)
    listeners = sorted({x.listener for x in decisive})
    resampled: Literal["listeners", "votes"] = "listeners" if len(listeners) > 1 else "votes"
    if not names:
        return Board([], 0, 0, both_bad, resampled, [], None)
    row = {name: place for place, name in enumerate(listeners)}
    owners = [row[x.listener] for x in decisive] if resampled == "listeners" else list(range(len(decisive)))
    wins, ties = outcome_counts(decisive, names, owners)
    fit = fit_bradley_terry(wins.sum(0), ties.sum(0), tie_model, prior_sd)
    played = wins.sum(0) + wins.sum(0).T + ties.sum(0)
    low, high, ranks = _strength_intervals(fit.strengths, wins, ties, tie_model, prior_sd, seed, resamples)
    order = np.argsort(-fit.strengths, kind="stable")
    strengths = [
        Strength(
            names[k],
            Interval(float(fit.strengths[k]), float(low[k]), float(high[k])),
            place + 1,
            (int(ranks[0][k]), int(ranks[1][k])),
            int(played[k].sum()),
        )
        for place, k in enumerate(order)
    ]
    labels = connected_components(csr_array(played > 0), directed=False)[1]
    groups = [[name for name, group in zip(names, labels, strict=True) if group == g] for g in range(max(labels) + 1)]
    tie = float(fit.tie) if np.isfinite(fit.tie) else None
    return Board(strengths, len(decisive), sum(x.winner == "tie" for x in decisive), both_bad, resampled, groups, tie)


def outcome_counts(
    answers: Sequence[Comparison], systems: Sequence[str], owners: Sequence[int] | None = None
) -> tuple[Array, Array]:
    """Wins and ties as `fit_bradley_terry` takes them, [L, K, K] each, of the answers of each of L owners (one where
    none are given)."""
    place = {name: k for k, name in enumerate(systems)}
    rows = [0] * len(answers) if owners is None else owners
    wins = np.zeros((max(rows, default=0) + 1, len(systems), len(systems)))
    ties = np.zeros_like(wins)
    for owner, x in zip(rows, answers, strict=True):
        a, b = place[x.system_a], place[x.system_b]
        if x.winner == "tie":
            ties[owner, a, b] += 1
            ties[owner, b, a] += 1
        elif x.winner != "both_bad":
            wins[owner, *((a, b) if x.winner == "a" else (b, a))] += 1
    return wins, ties


def _strength_intervals(
    estimate: Array, wins: Array, ties: Array, tie_model: Ties, prior_sd: float, seed: int, resamples: int
) -> tuple[Array, Array, tuple[Array, Array]]:
    owners, systems = len(wins), wins.shape[-1]
    if owners < 2:
        wide = np.full(systems, np.inf)
        return -wide, wide, (np.ones(systems), np.full(systems, systems))
    counts = np.random.default_rng(seed).multinomial(owners, np.full(owners, 1 / owners), size=resamples)
    replicates = [
        fit_bradley_terry(
            np.tensordot(part, wins, 1), np.tensordot(part, ties, 1), tie_model, prior_sd
        ).strengths
        for part in np.array_split(counts.astype(np.float64), max(1, resamples // 250))
    ]  # fmt: skip
    drawn = np.concatenate(replicates)
    level = expanded(owners)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, tails, axis=0)
    gaps = drawn[:, :, None] - drawn[:, None, :]
    least, most = np.quantile(gaps, tails, axis=0)  # of i over j
    best = 1 + (most < 0).sum(1)  # how many are surely better
    worst = systems - (least > 0).sum(1)
    return np.minimum(low, estimate), np.maximum(high, estimate), (best, worst)

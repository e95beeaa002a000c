"""Over-optimization: where the reward keeps rising while other metrics fall.

A series is anything in an order of more and more optimization, with the same prompts at every point: the stages of a
chain, checkpoints, or the best of N candidates for growing N. The other metric is any other of the same
clips: text-audio agreement, a distance, the listeners' true utility.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

from plaudit.evaluate.metrics import lower_is_better
from plaudit.statistics import LEVEL, Array, Interval, bca_mean, without_spread

DIVERGENCE_RESAMPLES = 2000


class MetricChange(Protocol):
    """The change of one metric by a stage, as in reports and comparisons."""

    @property
    def metric(self) -> str:
        """The metric's name."""
        ...

    @property
    def difference(self) -> Interval:
        """The difference."""
        ...

    @property
    def established(self) -> bool:
        """Whether the difference is significant, corrected for all tests of its table."""
        ...


@dataclass(frozen=True)
class Divergence:
    """The point of a series from which a metric falls while the reward rises.

    place: of the point, where the other metric is best; end: where the reward is highest after it. low, high: the 95 %
    interval of `place` over resampled prompts, in which a series without a parting counts as parting at its last
    point. share: of the resampled series, how many part. rise, loss: how much reward is gained and of the other metric
    lost from `place` to `end`, both positive. p: of the weaker of the two paired t-tests, times the number of pairs of
    points that could have been chosen (Bonferroni).
    """

    metric: str
    place: int
    end: int
    low: int
    high: int
    share: float
    rise: Interval
    loss: Interval
    p: float

    @property
    def established(self) -> bool:
        """Whether the divergence is significant."""
        return self.p < 1 - LEVEL


def find_divergence(metric: str, reward: Array, other: Array, seed: int = 0) -> Divergence | None:
    """Where the means of reward [S, B] and of another metric [S, B] diverge over S points; None where they do not.

    Both have the same B prompts at every point. Distances, by their names, are better where they are lower.
    """
    if reward.shape != other.shape or reward.ndim != 2 or reward.shape[1] < 2:
        raise ValueError(f"a series needs two metrics of the same clips, not {reward.shape} and {other.shape}")
    if not (np.isfinite(reward).all() and np.isfinite(other).all()):
        raise ValueError(f"the series of {metric} has values that are not finite; leave such prompts out of all points")
    worth = -other if lower_is_better(metric) else other
    points, prompts = reward.shape
    places, ends = _divergences(reward.mean(axis=1)[None], worth.mean(axis=1)[None])
    place, end = int(places[0]), int(ends[0])
    if place == end:
        return None
    rng = np.random.default_rng(seed)
    shares = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=DIVERGENCE_RESAMPLES) / prompts  # [R, B]
    drawn, drawn_ends = _divergences(shares @ reward.T, shares @ worth.T)
    parted = drawn != drawn_ends
    at = np.where(parted, drawn, points - 1)
    low, high = np.quantile(at, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    gained, lost = reward[end] - reward[place], worth[place] - worth[end]
    chosen_among = points * (points - 1) // 2
    return Divergence(
        metric=metric,
        place=place,
        end=end,
        low=int(low),
        high=int(high),
        share=float(parted.mean()),
        rise=bca_mean(gained, seed),
        loss=bca_mean(lost, seed),
        p=min(1.0, chosen_among * max(_p_of(gained), _p_of(lost))),
    )


def _divergences(reward: Array, worth: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of R series of means [R, S]: the points [R] where worth is best, and where the reward is highest after it.

    The two are the same point where the series do not part.
    """
    points = np.arange(reward.shape[1])
    place = worth.argmax(axis=1)
    end = np.where(points >= place[:, None], reward, -np.inf).argmax(axis=1)
    rows = np.arange(len(reward))
    parts = (reward[rows, end] > reward[rows, place]) & (worth[rows, end] < worth[rows, place])
    return place, np.where(parts, end, place)


def _p_of(gaps: Array) -> float:
    return 1.0 if without_spread(gaps) else float(stats.ttest_1samp(gaps, 0.0).pvalue)


def regressions_under_reward(changes: Iterable[MetricChange], reward: str = "reward") -> list[str]:
    """The metrics that got worse where the reward rose, both significantly; empty where it did not rise."""
    changes = list(changes)
    if not any(c.metric == reward and c.established and c.difference.mean > 0 for c in changes):
        return []
    return [
        c.metric
        for c in changes
        if c.metric != reward and c.established and (c.difference.mean > 0) == lower_is_better(c.metric)
    ]


@dataclass(frozen=True)
class Regression:
    """A stage, or a system, whose reward rose while the named metrics got worse, both significantly."""

    title: str
    metrics: list[str]


def regression_sentence(paid: Sequence[Regression], kind: str = "stage") -> str:
    """One sentence on all stages together, or systems as `kind` says."""
    if not paid:
        return f"No {kind} raised reward while another metric got significantly worse."
    cases = "; ".join(f"{one.title} raised reward while {', '.join(one.metrics)} got worse" for one in paid)
    return f"Over-optimization: {cases}."


def reward_among(metrics: Sequence[str]) -> str | None:
    """The metric that is the reward: `reward`, else the first with that in its name."""
    named = [name for name in metrics if "reward" in name.lower()]
    return "reward" if "reward" in named else next(iter(named), None)


def best_of_n(chooser: Array, values: Array, counts: Sequence[int]) -> Array:
    """Expected `values` [B, M] of the best of n of M candidates by `chooser` [B, M]: [S, B], for n in `counts`.

    The expectation over all ways to draw n of the M candidates is exact: with candidates in order of what chooses, the
    one of rank r is the best of C(r - 1, n - 1) of the C(M, n) draws.
    """
    order = np.argsort(chooser, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    return np.stack([ranked @ rank_weights(values.shape[1], n) for n in counts])


def rank_weights(candidates: int, n: int) -> Array:
    """Probability [candidates] that the candidate of each rank, worst first, is the best of n drawn without return."""
    ranks = np.arange(1, candidates + 1)
    able = ranks >= n
    logs = np.full(candidates, -np.inf)
    logs[able] = _log_choose(ranks[able] - 1, n - 1) - _log_choose(candidates, n)
    return np.asarray(np.exp(logs))


def _log_choose(n: NDArray[np.int64] | int, k: int) -> Array:
    return np.asarray(gammaln(np.asarray(n) + 1) - gammaln(k + 1) - gammaln(np.asarray(n) - k + 1))

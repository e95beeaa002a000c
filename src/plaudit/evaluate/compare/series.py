"""Systems as a series, in the order given: checkpoints of a training, or more and more candidates to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plaudit.errors import EvaluationError
from plaudit.evaluate.compare.pairing import Pairing
from plaudit.evaluate.overoptimization import Divergence, find_divergence, reward_among
from plaudit.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class TrackedMetric:
    """Means by system of the reward and of another metric, over the prompts that have both, and where the two part."""

    metric: str
    reward: list[Interval]
    other: list[Interval]
    divergence: Divergence | None


def track_series(pairing: Pairing) -> list[TrackedMetric]:
    """Every metric against the reward along the systems; EvaluationError where there is no reward or no series."""
    reward = reward_among(pairing.metrics)
    others = [metric for metric in pairing.metrics if metric != reward]
    if reward is None or not others:
        raise EvaluationError(f"a series needs a metric named reward and another, not {', '.join(pairing.metrics)}")
    if len(pairing.systems) < 3:
        raise EvaluationError(f"a series needs at least three systems, not {', '.join(pairing.systems)}")
    return [_watched(pairing, reward, metric) for metric in others]


def _watched(pairing: Pairing, reward: str, metric: str) -> TrackedMetric:
    rewarded = {p.key for p in pairing.having(reward)}
    rows = [p for p in pairing.having(metric) if p.key in rewarded]
    if len(rows) < 2:
        raise EvaluationError(f"{len(rows)} prompts have both {reward} and {metric}, a series needs 2")

    def means(name: str) -> np.ndarray:
        """[S, P], over seeds."""
        return np.array([[np.mean([c.values[name] for c in p.clips[s]]) for p in rows] for s in pairing.systems])

    rewards, others = means(reward), means(metric)
    return TrackedMetric(
        metric=metric,
        reward=[bootstrap_mean(values, 0) for values in rewards],
        other=[bootstrap_mean(values, 0) for values in others],
        divergence=find_divergence(metric, rewards, others),
    )

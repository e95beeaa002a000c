"""Confidence sequences: intervals that hold whenever and however often results are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from plaudit.statistics import LEVEL, Interval
from plaudit.studio.listening.statistics.answers import by_listener

ALPHA = 1 - LEVEL

HORIZON = 100
"""The number of votes at which confidence sequences are tightest, where none is planned (ours)."""


def boundary(votes: float, alpha: float = ALPHA, horizon: int = HORIZON) -> float:
    """How many standard errors a confidence sequence reaches to either side after so many votes.

    The normal-mixture boundary, valid at all times at once: Robbins, Annals of Mathematical Statistics 41, 1970; for
    means whose variance is estimated, Waudby-Smith et al., "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52, 2024, equation 5, with their choice of the mixture's width for
    `horizon`.
    """
    log = -2 * math.log(alpha)
    width = (log + math.log1p(log)) / horizon  # rho squared
    scaled = votes * width
    return math.sqrt((scaled + 1) / scaled * math.log((scaled + 1) / alpha**2))


def confidence_sequence(scored: Sequence[tuple[str, float]], alpha: float = ALPHA, horizon: int = HORIZON) -> Interval:
    """The mean of scores in [0, 1], each of a listener, with an interval that holds at every time of looking.

    Its standard error is over listeners (cluster-robust), at least that of independent votes. For few listeners the
    boundary is turned from a normal quantile into Student's of the same tail (ours). With a single listener it is over
    votes, and says something about that listener only.
    """
    if not scored:
        return Interval(0.5, 0.0, 1.0)
    mean, error, freedom = mean_and_error(scored)
    if not error > 0:
        return Interval(mean, 0.0, 1.0)
    reach = student_boundary(len(scored), freedom, alpha, horizon) * error
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def student_boundary(votes: float, freedom: float, alpha: float, horizon: int) -> float:
    """`boundary`, turned from a normal quantile into Student's of the same tail."""
    normal = boundary(votes, alpha, horizon)
    return float(stats.t.isf(stats.norm.sf(normal), freedom))


def mean_and_error(scored: Sequence[tuple[str, float]]) -> tuple[float, float, int]:
    """Mean, standard error and its degrees of freedom.

    One vote for either side is added to the variance (not the mean): a few votes that are all the same would have
    none.
    """
    values = np.array([value for _, value in scored])
    mean = float(values.mean())
    square = float(((values - mean) ** 2).sum()) + (1 - mean) ** 2 + mean**2
    independent = square / (len(values) + 2) / len(values)
    sums, counts = by_listener(scored)
    clusters = len(sums)
    robust = float(((sums - counts * mean) ** 2).sum()) / len(values) ** 2 * clusters / max(1, clusters - 1)
    return mean, math.sqrt(max(independent, robust)), max(1, clusters - 1)

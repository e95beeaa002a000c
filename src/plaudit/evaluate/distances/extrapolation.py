"""FAD-infinity: the Frechet distance of infinitely many clips (Gui et al. 2024, after Chong and Forsyth 2020).

The distance of n clips is biased upwards by about a constant over n. So it is measured for subsets of several sizes,
a straight line in 1/n is fitted, and its value at 1/n = 0 is the estimate. Only the generated clips are extrapolated,
as in the paper: the reference is as large as it is.

Subsets are drawn without replacement (ours): the line of draws with replacement leads to the distance of the very
clips at hand, because it is these that they exhaust.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances.embeddings import Rows, embeddings_of
from plaudit.evaluate.distances.frechet import FrechetOfRows, Gaussian
from plaudit.evaluate.statistics import Interval, bootstrap_statistic, centred_interval

SIZES, DRAWS = 8, 3
"""Sizes of subsets, evenly spaced in 1/n, and subsets of each (ours)."""

SMALLEST_SHARE = 0.4
"""The smallest subset, as a share of the clips (ours): below, terms of higher order in 1/n bend the line."""

LEAST = 20
"""Clips below which there is no line to speak of (ours)."""

STRAIGHT = 8.0
"""Clips per dimension of the reference from which on the line is straight enough (ours, see `straight`)."""


@dataclass(frozen=True)
class Line:
    """A distance as a + b / n: `at_infinity` is a, `slope` b; r2 is the share of the variance that it explains."""

    at_infinity: float
    slope: float
    r2: float


def frechet_infinity(generated: ArrayLike, reference: Gaussian, seed: int = 0) -> Line:
    """The line of the Frechet distance of subsets of `generated` [N, E] from `reference`.

    May lie below zero for sets that are as good as the reference, and says nothing where it is not `straight`.
    """
    x = embeddings_of(generated)
    return fitted(FrechetOfRows(x, reference), np.arange(len(x)), _subsets(len(x), seed))


def frechet_infinity_interval(
    generated: ArrayLike, reference: Gaussian, seed: int = 0, resamples: int = 100
) -> Interval:
    """The value at infinity with its 95 % bootstrap interval over clips.

    Centred, as that of the distance itself is: resampling repeats clips, and repeats raise the distance.
    """
    x = embeddings_of(generated)
    subsets, distance = _subsets(len(x), seed), FrechetOfRows(x, reference)
    return bootstrap_statistic(
        lambda rows: fitted(distance, rows, subsets).at_infinity, len(x), seed, resamples, centred_interval
    )


def straight(count: int, reference: Gaussian) -> bool:
    """Whether `count` clips are enough for the distance to be a line in 1/n (ours).

    With few clips per dimension it is a curve however well a line fits, and its end at infinity may be far off on
    either side. Dimensions count by what they add to the distance: (sum of s)^2 / sum of s^2 over the reference's
    standard deviations s along its axes, which is E where all are equal.
    """
    deviations = np.linalg.svd(reference.factor, compute_uv=False)
    total = float(np.square(deviations).sum())
    return total > 0 and count >= STRAIGHT * float(deviations.sum()) ** 2 / total


def fitted(distance: Callable[[Rows], float], rows: Rows, subsets: list[Rows]) -> Line:
    """The least-squares line through the distances of rows[s] for each s of `subsets`, against 1 / len(s)."""
    inverse = np.array([1.0 / len(subset) for subset in subsets])
    distances = np.array([distance(rows[subset]) for subset in subsets])
    slope, intercept = np.polyfit(inverse, distances, 1)
    left = distances - (intercept + slope * inverse)
    spread = np.square(distances - distances.mean()).sum()
    return Line(float(intercept), float(slope), float(1.0 - np.square(left).sum() / spread) if spread > 0 else 1.0)


def _subsets(count: int, seed: int) -> list[Rows]:
    """Which of `count` clips each subset holds; the same draws for every resample."""
    if count < LEAST:
        raise EvaluationError(f"{count} clips given, an extrapolation needs at least {LEAST}; evaluate more clips")
    inverse = np.linspace(1.0 / (SMALLEST_SHARE * count), 1.0 / count, SIZES)
    rng = np.random.default_rng(seed)
    subsets = []
    for size in np.round(1.0 / inverse).astype(int):
        draws = 1 if size == count else DRAWS
        subsets += [rng.choice(count, size=size, replace=False) for _ in range(draws)]
    return subsets

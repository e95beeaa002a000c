"""How sure a number is: bootstrap intervals, paired tests, and the correction for asking many questions at once.

Stages are compared on the same prompts and seeds, so everything here that compares is paired by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
LEVEL = 0.95
"""The coverage of every interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over clips, its interval, and two-sided p-values of the paired t and the Wilcoxon test."""

    difference: Interval
    p_t: float
    p_wilcoxon: float


def percentile_interval(estimate: float, replicates: Array) -> Interval:
    """The 95 % percentile interval of bootstrap replicates [R] of an estimate."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(estimate), float(low), float(high))


def centred_interval(estimate: float, replicates: Array) -> Interval:
    """The percentile interval, shifted so that the mean of the replicates [R] is the estimate.

    For a Frechet distance: resampling repeats clips, which biases it upwards once more, and unshifted percentiles
    often lie wholly above the estimate. The shift is ours: the interval speaks of the spread of the estimate at this
    number of clips, not of its bias.
    """
    spread = percentile_interval(estimate, replicates)
    shift = estimate - float(np.mean(replicates))
    return Interval(spread.mean, spread.low + shift, spread.high + shift)


def bootstrap_replicates(
    statistic: Callable[[NDArray[np.int64]], float], count: int, seed: int, resamples: int = 300
) -> Array:
    """`statistic` of `resamples` draws of `count` clip indices with replacement: [R].

    The draws depend on count, seed and resamples alone: replicates of two stages made with the same three are paired.
    """
    rng = np.random.default_rng(seed)
    return np.array([statistic(rng.integers(0, count, size=count)) for _ in range(resamples)])


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    seed: int,
    resamples: int = 300,
    interval: Callable[[float, Array], Interval] = percentile_interval,
) -> Interval:
    """The 95 % bootstrap interval of a statistic of clips, given as a function of the indices of the clips [count].

    `interval` makes it of the estimate and the replicates: `centred_interval` for a Frechet distance.
    """
    estimate = float(statistic(np.arange(count)))
    return interval(estimate, bootstrap_replicates(statistic, count, seed, resamples))


def bootstrap_mean(values: ArrayLike, seed: int, n: int = 2000) -> Interval:
    """The mean of values [B] with its 95 % bootstrap interval from `n` resamples."""
    sample = _sample(values)
    indices = np.random.default_rng(seed).integers(0, len(sample), size=(n, len(sample)))
    return percentile_interval(float(sample.mean()), sample[indices].mean(axis=1))


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int = 0) -> PairedDifference:
    """How much a [B] exceeds b [B] clip by clip, and whether chance would do as much. At least two clips."""
    gaps = _sample(a) - _sample(b)
    if len(gaps) < 2:
        raise ValueError("a paired comparison needs at least two clips")
    difference = bootstrap_mean(gaps, seed)
    if np.allclose(gaps, gaps[0], rtol=0.0, atol=1e-12):
        # No spread: the tests divide by zero, and the answer is plain.
        p = 1.0 if abs(gaps[0]) <= 1e-12 else 0.0
        return PairedDifference(difference, p, p)
    return PairedDifference(difference, float(stats.ttest_1samp(gaps, 0.0).pvalue), float(stats.wilcoxon(gaps).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being read together (Holm, 1979), in the order given.

    Calling those below 0.05 real is then wrong about any of them at most 5 % of the time.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return [float(p) for p in corrected]


def win_rate(a: ArrayLike, b: ArrayLike, seed: int = 0) -> Interval:
    """The share of clips for which a [B] is above b [B], a draw counting half, with its interval."""
    gaps = _sample(a) - _sample(b)
    return bootstrap_mean((np.sign(gaps) + 1.0) / 2.0, seed)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """The rank correlation of x [N] and y [N] in [-1, 1]; 0 where either does not vary."""
    first, second = _sample(x), _sample(y)
    if len(first) != len(second):
        raise ValueError(f"a rank correlation needs as many of both, not {len(first)} and {len(second)}")
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    return float(stats.spearmanr(first, second).statistic)


def _sample(values: ArrayLike) -> Array:
    """Values as a non-empty vector of finite numbers."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"statistics need a non-empty list of numbers, not shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("a value is not finite; leave such clips out or find out why")
    return sample

"""How sure an estimate is: bootstrap intervals over clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
LEVEL = 0.95
"""The coverage of every interval."""

RESAMPLES = 4999
"""Of a BCa interval and of a permutation test, whose least p-value is 2 / (resamples + 1)."""


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


def finite(values: ArrayLike) -> Array:
    """Values as a non-empty vector of finite numbers; ValueError where they are anything else."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"statistics need a non-empty list of numbers, not shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("a value is not finite; leave such clips out or find out why")
    return sample


def without_spread(values: ArrayLike) -> bool:
    """Whether all values [B] are the same, but for rounding: then no test says anything about them."""
    sample = finite(values)
    return bool(np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())))


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
    sample = finite(values)
    indices = np.random.default_rng(seed).integers(0, len(sample), size=(n, len(sample)))
    return percentile_interval(float(sample.mean()), sample[indices].mean(axis=1))


def expanded(count: int, level: float = LEVEL) -> float:
    """The level at which a bootstrap interval of the mean of `count` values is as wide as Student's, were they normal.

    Resampling divides by B where an unbiased variance divides by B - 1, and reads normal tails where few values have
    Student's, so that a bootstrap of few clips is too narrow (Hesterberg, The American Statistician 69, 2015).
    """
    quantile = np.sqrt(count / (count - 1)) * stats.t.ppf((1 + level) / 2, count - 1)
    return float(2 * stats.norm.cdf(quantile) - 1)


def bca_mean(values: ArrayLike, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The mean of values [B] with its bias-corrected and accelerated bootstrap interval (Efron, 1987), by SciPy, at the
    level that `expanded` gives.

    Where the values are skewed it leans to the longer tail, which the percentile interval does not. Values without
    spread have an interval without width; of two values no interval is wide enough, and it is all that they reach.
    """
    sample = finite(values)
    mean = float(sample.mean())
    if without_spread(sample):
        return Interval(mean, mean, mean)
    if len(sample) == 2:
        return Interval(mean, float(sample.min()), float(sample.max()))
    found = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        confidence_level=expanded(len(sample)),
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))

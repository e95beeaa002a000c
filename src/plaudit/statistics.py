"""Intervals, paired tests, effect sizes, corrections, equivalence, power, and several seeds.

The difference of two systems for prompt i and seed k is modelled as mean + prompt_i + seed_k + rest_ik. Treating the
P x K differences as independent would count each prompt K times; averaging over seeds alone would forget that other
seeds would have given another mean.

Stages are compared on the same prompts and seeds, so everything here is paired by clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gammaln

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
    """Whether all values [B] are the same, but for rounding: then no test applies."""
    sample = finite(values)
    return bool(np.ptp(sample) <= 1e-12 * max(1.0, float(np.abs(sample).max())))


def percentile_interval(estimate: float, replicates: Array) -> Interval:
    """The 95 % percentile interval of bootstrap replicates [R] of an estimate."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(estimate), float(low), float(high))


def centred_interval(estimate: float, replicates: Array) -> Interval:
    """The percentile interval, shifted so that the mean of the replicates [R] is the estimate.

    For a Frechet distance: resampling repeats clips, which biases it upwards once more, and unshifted percentiles
    often lie wholly above the estimate. The shift is ours: the interval covers the spread of the estimate at this
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


def bootstrap_ratio(
    sums: ArrayLike, counts: ArrayLike, seed: int, resamples: int = 1000, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """sum(sums) / sum(counts) of clusters [B] with its 95 % bootstrap interval over clusters, at the level that
    `expanded` gives. Of one cluster it is all that a ratio can be: `bounds`."""
    totals, sizes = finite(sums), finite(counts)
    estimate = float(totals.sum() / sizes.sum())
    clusters = len(totals)
    if clusters < 2:
        return Interval(estimate, *bounds)
    draws = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    level = expanded(clusters)
    low, high = np.quantile((draws @ totals) / (draws @ sizes), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


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
    interval = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        confidence_level=expanded(len(sample)),
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


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


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by the share of false discoveries (Benjamini and Hochberg, 1995), in the order given.

    Of those called real below 0.05, 5 % are expected to be wrong: a weaker guarantee than Holm's, with more power.
    """
    return [float(p) for p in stats.false_discovery_control(list(p_values))] if len(p_values) else []


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests (Schuirmann, 1987) that a mean difference lies within plus and minus `margin`.

    p: the larger of the two p-values; below 0.05 the difference is smaller than the margin, whichever its sign. That
    is so just where the 90 % interval of the difference lies within the margin.
    """

    margin: float
    p: float


def equivalence_test(mean: float, error: float, freedom: float, margin: float) -> Equivalence:
    """Test a mean with its standard error, of `freedom` degrees of freedom, against a margin above zero."""
    if not margin > 0:
        raise ValueError(f"a margin of equivalence must be above zero, not {margin}")
    if not error > 0:
        raise ValueError("a difference without spread has no test of equivalence")
    above = stats.t.sf((mean + margin) / error, freedom)  # that it is not below -margin
    below = stats.t.cdf((mean - margin) / error, freedom)  # that it is not above margin
    return Equivalence(margin, float(max(above, below)))


@dataclass(frozen=True)
class MixedDifference:
    """The mean difference, its interval and two-sided p-value over prompts and seeds as they could have been drawn.

    error: standard error of the mean; freedom: its degrees of freedom (Satterthwaite).
    prompt, seed, rest: the variances (REML); seed is None where seeds are not shared between prompts.
    """

    difference: Interval
    p: float
    error: float
    freedom: float
    prompt: float
    seed: float | None
    rest: float


@dataclass(frozen=True)
class _Stratum:
    """A mean square with its degrees of freedom, and with which weight it enters the variance of the grand mean."""

    square: float
    freedom: float
    weight: float


def mixed_difference(gaps: ArrayLike, shared_seeds: bool) -> MixedDifference:
    """Differences [P, K] of P prompts, each with the same number K of seeds, both at least 2.

    shared_seeds: column k is the same seed for every prompt, so that a lucky seed lifts all prompts (crossed effects);
    else a seed belongs to its prompt and is part of the rest. For such balanced tables REML has a closed form: the
    mean squares of the analysis of variance, pooled where a variance would come out negative.
    """
    table = np.asarray(gaps, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"a mixed model needs at least two prompts and two seeds, not shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("a value is not finite; leave such clips out or find out why")
    if np.ptp(table) <= 1e-12 * max(1.0, float(np.abs(table).max())):
        raise ValueError(f"all {table.size} differences are {table.flat[0]:g}; without spread there is nothing to test")
    prompts, seeds = table.shape
    mean = float(table.mean())
    by_prompt, by_seed = table.mean(axis=1, keepdims=True) - mean, table.mean(axis=0, keepdims=True) - mean
    leaves = [_Stratum(seeds * float((by_prompt**2).sum()) / (prompts - 1), prompts - 1, 1.0)]
    if shared_seeds:
        rest_freedom = (prompts - 1) * (seeds - 1)
        rest_sum = float(((table - mean - by_prompt - by_seed) ** 2).sum())
        leaves.append(_Stratum(prompts * float((by_seed**2).sum()) / (seeds - 1), seeds - 1, 1.0))
        rest = _Stratum(rest_sum / rest_freedom, rest_freedom, -1.0)
    else:
        rest_freedom = prompts * (seeds - 1)
        rest = _Stratum(float(((table - mean - by_prompt) ** 2).sum()) / rest_freedom, rest_freedom, 0.0)
    kept, pooled = _pooled(leaves, rest)
    parts = [*kept.values(), pooled]
    variance = sum(part.weight * part.square for part in parts)
    freedom = variance**2 / sum((part.weight * part.square) ** 2 / part.freedom for part in parts)
    error = float(np.sqrt(variance / table.size))
    if not error > 0:
        raise ValueError("the differences vary in a way that leaves their mean no error; there is nothing to test")
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    variances = [(kept[i].square - pooled.square) / n if i in kept else 0.0 for i, n in enumerate((seeds, prompts))]
    return MixedDifference(
        difference=Interval(mean, mean - reach, mean + reach),
        p=float(2 * stats.t.sf(abs(mean) / error, freedom)),
        error=error,
        freedom=float(freedom),
        prompt=variances[0],
        seed=variances[1] if shared_seeds else None,
        rest=pooled.square,
    )


def _pooled(leaves: list[_Stratum], rest: _Stratum) -> tuple[dict[int, _Stratum], _Stratum]:
    """The strata, by place, whose mean square exceeds that of the rest, and the rest with the others pooled into it.

    A variance below zero has its most likely value at zero, where its mean square estimates the same as the rest's.
    """
    kept = {}
    for place, leaf in sorted(enumerate(leaves), key=lambda pair: pair[1].square):
        if leaf.square > rest.square:
            kept[place] = leaf
        else:
            freedom = leaf.freedom + rest.freedom
            square = (leaf.freedom * leaf.square + rest.freedom * rest.square) / freedom
            rest = _Stratum(square, freedom, leaf.weight + rest.weight)
    return kept, rest


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over clips with its BCa interval, and two-sided p-values of three tests that it is zero.

    p_t supposes that means of this many differences are normal; p_wilcoxon and p_permutation that differences are
    symmetric about zero where there is no effect.
    """

    difference: Interval
    p_t: float
    p_wilcoxon: float
    p_permutation: float


@dataclass(frozen=True)
class EffectSize:
    """Effect sizes relative to the spread between prompts.

    d: Cohen's d_z, the mean of the differences over their standard deviation. g: the same without its bias for few
    prompts (Hedges, 1981). rank_biserial: Wilcoxon's, the share of ranks in favour minus that against, in [-1, 1].
    """

    d: float
    g: float
    rank_biserial: float


def differences(a: ArrayLike, b: ArrayLike) -> Array:
    """a - b clip by clip [B]; ValueError where the two are of different lengths, of fewer than two, or not finite."""
    first, second = finite(a), finite(b)
    if len(first) != len(second):
        raise ValueError(f"a paired comparison needs as many of both, not {len(first)} and {len(second)}")
    if len(first) < 2:
        raise ValueError("a paired comparison needs at least two clips")
    return first - second


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> PairedDifference:
    """The mean of a [B] - b [B] with its interval and tests; at least two clips.

    Where a and b are the same all p-values are 1. ValueError where they differ by the same everywhere: no test can
    say how rare that is.
    """
    gaps = differences(a, b)
    difference = bca_mean(gaps, seed, resamples)
    if without_spread(gaps):
        if abs(gaps[0]) > 1e-12:
            raise ValueError(f"all {len(gaps)} differences are {gaps[0]:g}; without spread there is nothing to test")
        return PairedDifference(difference, 1.0, 1.0, 1.0)
    return PairedDifference(
        difference,
        float(stats.ttest_1samp(gaps, 0.0).pvalue),
        float(stats.wilcoxon(gaps).pvalue),
        sign_flip_test(gaps, seed, resamples),
    )


def sign_flip_test(gaps: ArrayLike, seed: int, resamples: int = RESAMPLES) -> float:
    """The two-sided p-value of a mean of differences [B] among those with signs exchanged at random.

    Exact where all 2^B patterns of signs are at most `resamples`, else of that many seeded draws.
    """
    return float(
        stats.permutation_test(
            (finite(gaps),), np.mean, permutation_type="samples", n_resamples=resamples, vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    )  # fmt: skip


def effect_size(a: ArrayLike, b: ArrayLike) -> EffectSize:
    """How large the difference of a [B] and b [B] is; ValueError where it has no spread to be measured by."""
    gaps = differences(a, b)
    if without_spread(gaps):
        raise ValueError(f"all {len(gaps)} differences are {gaps[0]:g}; without spread no effect has a size")
    d = float(gaps.mean() / gaps.std(ddof=1))
    ranks = stats.rankdata(np.abs(gaps[gaps != 0]))  # Wilcoxon's test leaves out the clips that are equal
    signed = float((np.sign(gaps[gaps != 0]) * ranks).sum() / ranks.sum())
    return EffectSize(d, d * hedges_correction(len(gaps) - 1), signed)


def hedges_correction(freedom: int) -> float:
    """The factor that takes the bias off a standardized mean with `freedom` degrees of freedom (Hedges, 1981)."""
    if freedom < 2:
        return 0.0  # with one degree the expectation of Cohen's d does not exist
    half = freedom / 2
    return float(np.exp(gammaln(half) - gammaln(half - 0.5)) / np.sqrt(half))


def win_rate(a: ArrayLike, b: ArrayLike, seed: int = 0) -> Interval:
    """The share of clips for which a [B] is above b [B], a draw counting half, with its percentile interval."""
    gaps = finite(a) - finite(b)
    return bootstrap_mean((np.sign(gaps) + 1.0) / 2.0, seed)


POWER, POWER_ALPHA = 0.8, 0.05
"""The power of a test, and its rate of false positives."""

MOST_PROMPTS = 1_000_000
"""Where more would be needed, the answer is that no number of prompts is enough (ours)."""


def power_of(effect: float, prompts: float, alpha: float = POWER_ALPHA) -> float:
    """The power of a two-sided paired t-test over `prompts` for a difference of `effect` (Cohen's d_z)."""
    if prompts < 2:
        raise ValueError("a paired t-test needs at least two prompts")
    freedom, shift = prompts - 1, abs(effect) * math.sqrt(prompts)
    bound = stats.t.isf(alpha / 2, freedom)
    # SciPy's noncentral t has no value far in the tail, where the power is 1 beyond any doubt.
    power = stats.nct.sf(bound, freedom, shift) + stats.nct.cdf(-bound, freedom, shift)
    return 1.0 if np.isnan(power) else float(power)


def prompts_needed(effect: float, power: float = POWER, alpha: float = POWER_ALPHA) -> int | None:
    """The least number of prompts that detects a difference of `effect` (d_z) with `power`.

    None where that is more than MOST_PROMPTS, as for no difference at all.
    """
    if not math.isfinite(effect):
        raise ValueError(f"an effect of {effect} has no power; its differences have no spread")
    low, high = 1, 2  # `low` is not enough
    while power_of(effect, high, alpha) < power:
        low, high = high, 2 * high
        if low > MOST_PROMPTS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect, middle, alpha) >= power else (middle, high)
    return high if high <= MOST_PROMPTS else None


def detectable_effect(prompts: int, power: float = POWER, alpha: float = POWER_ALPHA) -> float:
    """The least difference (d_z) that `prompts` prompts find with `power`."""
    return float(brentq(lambda effect: power_of(effect, prompts, alpha) - power, 1e-9, 100.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """The rank correlation of x [N] and y [N] in [-1, 1]; 0 where either does not vary."""
    first, second = finite(x), finite(y)
    if len(first) != len(second):
        raise ValueError(f"a rank correlation needs as many of both, not {len(first)} and {len(second)}")
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of similar confidence: how many, their mean confidence, and the fraction that is correct."""

    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 10, even: bool = True
) -> list[ReliabilityBin]:
    """Bins of equal count, least confident first, of predictions [N] with their confidence and correctness, 0 to 1.

    even: counts differ by one at most; otherwise all are N // bins and the last bin takes the rest (TuneJury).
    """
    sure, right = (np.asarray(values, dtype=np.float64) for values in (confidence, correct))
    places = bins if even else np.arange(1, bins) * (len(sure) // bins)
    parts = np.array_split(np.argsort(sure, kind="stable"), places)
    return [
        ReliabilityBin(len(part), float(sure[part].mean()), float(right[part].mean())) for part in parts if len(part)
    ]


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 10, even: bool = True
) -> float:
    """Mean over predictions of their bin's |accuracy - confidence|, with the bins of `reliability_bins`."""
    table = reliability_bins(confidence, correct, bins, even)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in table) / sum(b.count for b in table)

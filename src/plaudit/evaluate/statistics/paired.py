"""Two systems on the same prompts: how much they differ, how large that is, and whether chance would do as much.

Stages are compared on the same prompts and seeds, so everything here is paired by clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import gammaln

from plaudit.evaluate.statistics.intervals import (
    RESAMPLES,
    Array,
    Interval,
    bca_mean,
    bootstrap_mean,
    finite,
    without_spread,
)


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
    """How large a difference is beside its spread from prompt to prompt.

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
    """How much a [B] exceeds b [B] clip by clip, and whether chance would do as much. At least two clips.

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

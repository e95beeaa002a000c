"""Several seeds per prompt: a difference with prompt, and seed, as random effects.

The difference of two systems for prompt i and seed k is modelled as mean + prompt_i + seed_k + rest_ik. Treating the
P x K differences as independent would count each prompt K times; averaging over seeds alone would forget that other
seeds would have given another mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from plaudit.evaluate.statistics.intervals import LEVEL, Interval


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

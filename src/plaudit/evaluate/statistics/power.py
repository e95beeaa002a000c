"""How many prompts a paired t-test needs to find a difference, and how small a one it can find (noncentral t)."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from scipy.optimize import brentq

POWER, ALPHA = 0.8, 0.05
"""How often a difference that is there should be found, and how often one that is not may be."""

MOST_PROMPTS = 1_000_000
"""Where more would be needed, the answer is that no number of prompts is enough (ours)."""


def power_of(effect: float, prompts: float, alpha: float = ALPHA) -> float:
    """How often a two-sided paired t-test over `prompts` finds a difference of `effect` (Cohen's d_z)."""
    if prompts < 2:
        raise ValueError("a paired t-test needs at least two prompts")
    freedom, shift = prompts - 1, abs(effect) * math.sqrt(prompts)
    bound = stats.t.isf(alpha / 2, freedom)
    # SciPy's noncentral t has no value far in the tail, where the power is 1 beyond any doubt.
    found = stats.nct.sf(bound, freedom, shift) + stats.nct.cdf(-bound, freedom, shift)
    return 1.0 if np.isnan(found) else float(found)


def prompts_needed(effect: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The least number of prompts with which a difference of `effect` (d_z) is found with `power`.

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


def detectable_effect(prompts: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The least difference (d_z) that `prompts` prompts find with `power`."""
    return float(brentq(lambda effect: power_of(effect, prompts, alpha) - power, 1e-9, 100.0))

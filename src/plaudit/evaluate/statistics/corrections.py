"""p-values that are read together: corrected for asking many questions at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


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

    Of those called real below 0.05, 5 % are expected to be wrong: a weaker promise than Holm's, which finds more.
    """
    return [float(p) for p in stats.false_discovery_control(list(p_values))] if len(p_values) else []

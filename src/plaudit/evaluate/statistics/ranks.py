"""Whether two quantities put clips into the same order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from plaudit.evaluate.statistics.intervals import finite


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """The rank correlation of x [N] and y [N] in [-1, 1]; 0 where either does not vary."""
    first, second = finite(x), finite(y)
    if len(first) != len(second):
        raise ValueError(f"a rank correlation needs as many of both, not {len(first)} and {len(second)}")
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    return float(stats.spearmanr(first, second).statistic)

"""Kernel audio distance, KAD (Chung et al. 2025): the unbiased MMD^2 of two sets under a Gaussian kernel.

    KAD = 100 ( mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j) ),
    k(a, b) = exp(-|a - b|^2 / (2 s^2)),  s the median distance between two embeddings of the reference

The bandwidth comes from the reference alone, so that all systems are measured with one kernel; 100 is the paper's
scale. Its expectation is zero for sets of one distribution, whatever the number of clips, so it is below zero half of
the time there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances.embeddings import Array, Rows, both, distance_blocks, embeddings_of
from plaudit.evaluate.statistics import Interval, bootstrap_statistic

SCALE = 100.0
MEDIAN_OF = 4000


def median_bandwidth(reference: ArrayLike) -> float:
    """The median distance between two different embeddings of `reference` [M, E]; EvaluationError where it is zero.

    Of a reference above MEDIAN_OF clips that many are drawn, the same each time (ours).
    """
    y = embeddings_of(reference, kind="reference")
    if len(y) > MEDIAN_OF:
        y = y[np.random.default_rng(0).choice(len(y), MEDIAN_OF, replace=False)]
    median = float(np.median(pdist(y)))
    if median == 0.0:
        raise EvaluationError(
            "half of the reference embeddings are the same, so a kernel has no width; use a reference of varied music"
        )
    return median


def kernel_distance(generated: ArrayLike, reference: ArrayLike) -> float:
    """KAD of embeddings [N, E] from a reference [M, E]."""
    x, y = both(generated, reference)
    return _kernel_of_rows(x, y)(np.arange(len(x)))


def kernel_distance_interval(
    generated: ArrayLike, reference: ArrayLike, seed: int = 0, resamples: int = 1000
) -> Interval:
    """KAD with its 95 % percentile interval over the generated clips; the reference is held fixed."""
    x, y = both(generated, reference)
    return bootstrap_statistic(_kernel_of_rows(x, y), len(x), seed, resamples)


def _kernel_of_rows(x: Array, y: Array) -> Callable[[Rows], float]:
    """KAD of any rows of x. A clip that is drawn twice makes no pair with itself (ours): it would be a pair of
    identical clips that nobody generated, and the estimate would no longer be unbiased."""
    width = 2.0 * median_bandwidth(y) ** 2
    within = np.exp(-cdist(x, x, "sqeuclidean") / width)
    np.fill_diagonal(within, 0.0)
    across = np.concatenate([np.exp(-apart / width).mean(axis=1) for _, apart in distance_blocks(x, y, "sqeuclidean")])
    alike = sum(float(np.exp(-apart / width).sum()) for _, apart in distance_blocks(y, y, "sqeuclidean"))
    among = (alike - len(y)) / (len(y) * (len(y) - 1))  # less the pairs of a clip with itself

    def of(rows: Rows) -> float:
        times = np.bincount(rows, minlength=len(x)).astype(np.float64)
        pairs = times.sum() ** 2 - np.square(times).sum()
        own = times @ within @ times / pairs if pairs > 0 else 1.0
        return SCALE * float(own + among - 2.0 * (times @ across) / times.sum())

    return of

"""-ln MAUVE on quantized embeddings (Pillutla et al. 2021; for music Huang et al. 2025, there called MAD).

Both sets are joined at unit length, reduced by PCA to 90 % of their variance, and clustered by k-means; each set is
then the share of its clips in each cluster, P and Q. For mixtures R = w P + (1 - w) Q the points

    ( exp(-c KL(Q | R)), exp(-c KL(P | R)) ),   0 < w < 1,   c = 5

make a curve from (0, 1) to (1, 0); the area under it is MAUVE, 1 for equal shares. -ln MAUVE is 0 there and grows with
what one set has and the other has not. Constants are the paper's: c, 90 % of variance, a tenth of the smaller set as
the number of clusters, 25 mixtures; the unit length is from the authors' code.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans, vq

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances.embeddings import Array, both
from plaudit.evaluate.statistics import Interval, bootstrap_statistic, centred_interval

SCALING = 5.0
EXPLAINED = 0.9
MIXTURES = 25
RESTARTS = 5
LEAST = 20
"""Clips in the smaller set that make two clusters of ten."""

Labels = NDArray[np.int64]


def mauve_divergence(generated: ArrayLike, reference: ArrayLike, seed: int = 0) -> float:
    """-ln MAUVE of embeddings [N, E] and a reference [M, E]; the seed is that of the clustering."""
    p, q, clusters = _quantized(generated, reference, seed)
    return divergence(_shares(p, clusters), _shares(q, clusters))


def mauve_interval(generated: ArrayLike, reference: ArrayLike, seed: int = 0, resamples: int = 1000) -> Interval:
    """-ln MAUVE with its 95 % bootstrap interval over the generated clips.

    The clusters are held fixed (ours). Centred: resampled shares are noisier than those at hand, so they lie farther
    from any other.
    """
    p, q, clusters = _quantized(generated, reference, seed)
    target = _shares(q, clusters)
    found = bootstrap_statistic(
        lambda rows: divergence(_shares(p[rows], clusters), target), len(p), seed, resamples, centred_interval
    )
    return Interval(found.mean, max(0.0, found.low), found.high)


def divergence(p: Array, q: Array) -> float:
    """-ln MAUVE of two distributions over the same clusters, both [K] and summing to one."""
    curve = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, MIXTURES):
        mixture = weight * p + (1 - weight) * q
        curve.append((math.exp(-SCALING * _kl(q, mixture)), math.exp(-SCALING * _kl(p, mixture))))
    curve.append((1.0, 0.0))
    first, second = np.array(curve).T
    # The trapezoids of a convex curve depend on the axis they stand on; the paper's code takes the mean of both.
    area = 0.5 * (_area(first, second) + _area(second, first))
    return max(0.0, -math.log(min(1.0, area)))


def quantize(points: Array, clusters: int, seed: int) -> Labels:
    """The cluster of each point: k-means, the best of a few starts at random points.

    Fewer clusters come out where there are fewer different points.
    """
    rng = np.random.default_rng(seed)
    different = np.unique(points, axis=0)
    clusters = min(clusters, len(different))
    if clusters == 1:
        return np.zeros(len(points), dtype=np.int64)
    starts = [different[rng.choice(len(different), clusters, replace=False)] for _ in range(RESTARTS)]
    centres, _ = min((kmeans(points, start) for start in starts), key=lambda found: float(found[1]))
    return vq(points, centres)[0].astype(np.int64)


def _quantized(generated: ArrayLike, reference: ArrayLike, seed: int) -> tuple[Labels, Labels, int]:
    x, y = both(generated, reference)
    smaller = min(len(x), len(y))
    if smaller < LEAST:
        raise EvaluationError(f"{smaller} clips in one set, MAUVE's clusters need at least {LEAST} in both")
    joined = np.concatenate([x, y])
    length = np.linalg.norm(joined, axis=1, keepdims=True)
    joined = joined / np.where(length > 0, length, 1.0)
    joined = joined - joined.mean(axis=0)
    if np.abs(joined).max() < 1e-12:
        raise EvaluationError("all embeddings of both sets are the same, there is nothing to cluster; check the audio")
    _, values, directions = np.linalg.svd(joined, full_matrices=False)
    explained = np.cumsum(np.square(values)) / np.square(values).sum()
    kept = int(np.searchsorted(explained, EXPLAINED)) + 1
    labels = quantize(joined @ directions[:kept].T, max(2, round(smaller / 10)), seed)
    return labels[: len(x)], labels[len(x) :], int(labels.max()) + 1


def _shares(labels: Labels, clusters: int) -> Array:
    return np.bincount(labels, minlength=clusters) / len(labels)


def _kl(p: Array, q: Array) -> float:
    """KL(p | q) for q > 0 wherever p is."""
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _area(x: Array, y: Array) -> float:
    order = np.lexsort((-y, x))
    return float(np.trapezoid(y[order], x[order]))

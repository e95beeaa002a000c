"""Distances between sets of embeddings, and diversity of a single set.

    d = |mu_x - mu_y|^2 + tr(X) + tr(Y) - 2 tr((X Y)^(1/2))                    (Dowson and Landau, 1982)

With covariances written as X = F_x' F_x and Y = F_y' F_y, the last trace is the sum of the singular values of F_x F_y'.
That needs no matrix square root, stays real and accurate when a covariance is singular, and costs little when there
are fewer clips than dimensions, the usual case for a held-out set of prompts.

The distance of n clips is biased upwards by about a constant over n. So it is measured for subsets of several sizes,
a straight line in 1/n is fitted, and its value at 1/n = 0 is the estimate. Only the generated clips are extrapolated,
as in the paper: the reference is as large as it is.

Subsets are drawn without replacement (ours): the line of draws with replacement leads to the distance of the very
clips at hand, because it is these that they exhaust.

    KAD = 100 ( mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j) ),
    k(a, b) = exp(-|a - b|^2 / (2 s^2)),  s the median distance between two embeddings of the reference

The bandwidth comes from the reference alone, so that all systems are measured with one kernel; 100 is the paper's
scale. Its expectation is zero for sets of one distribution, whatever the number of clips, so it is below zero half of
the time there.

Both sets are joined at unit length, reduced by PCA to 90 % of their variance, and clustered by k-means; each set is
then the share of its clips in each cluster, P and Q. For mixtures R = w P + (1 - w) Q the points

    ( exp(-c KL(Q | R)), exp(-c KL(P | R)) ),   0 < w < 1,   c = 5

make a curve from (0, 1) to (1, 0); the area under it is MAUVE, 1 for equal shares. -ln MAUVE is 0 there and grows with
what one set has and the other has not. Constants are the paper's: c, 90 % of variance, a tenth of the smaller set as
the number of clusters, 25 mixtures; the unit length is from the authors' code.

A set's balls lie around its embeddings; each reaches to the k-th nearest other embedding of the set. k is 3 for
precision and recall and 5 for density and coverage, as in the papers.

- precision: share of generated clips inside any ball of the reference. Do they sound like the reference?
- recall: share of reference clips inside any ball of the generated set. Does the set cover the reference?
- density: balls of the reference that a generated clip lies in, mean over clips and divided by k. About 1
  for a set like the reference, and not bounded.
- coverage: share of the reference's balls that hold a generated clip.

Precision and density are means over generated clips, so their intervals are those of means. Recall and coverage are
not, and have no interval: a clip that a resample draws twice is its own nearest neighbour, which shrinks the balls of
recall, and a resample of n clips holds about 0.63 n different ones, which leaves balls empty that the set does cover.

The exponential of the Shannon entropy of the eigenvalues of K / n, where K [n, n] holds the cosines of the embeddings:
1 where all are the same, n where all are orthogonal. It needs no reference, so a set can be as diverse as noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans, vq
from scipy.spatial.distance import cdist, pdist

from plaudit.errors import EvaluationError
from plaudit.statistics import Interval, bootstrap_statistic, centred_interval

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

BLOCK = 1000
"""Rows whose distances to a whole set are in memory at once (ours): a reference may have 50,000 clips."""


def embeddings_of(embeddings: ArrayLike, least: int = 2, kind: str = "") -> Array:
    """`embeddings` as float64 [N, E]; EvaluationError for any other shape, non-finite values, or N below `least`.

    kind: "reference" or nothing, for messages.
    """
    rows, kind = np.asarray(embeddings, dtype=np.float64), f"{kind} " if kind else ""
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise EvaluationError(f"{kind}embeddings must be an array [clips, width], not of shape {list(rows.shape)}")
    if len(rows) < least:
        counted = f"{len(rows)} {kind}embedding{'' if len(rows) == 1 else 's'}"
        raise EvaluationError(f"{counted} given, at least {least} needed; take more {kind}clips")
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        first, times = int(broken.argmax()), int(broken.sum())
        raise EvaluationError(
            f"the embedding of {kind}clip {first} is not finite ({times} such of {len(rows)}); leave it out"
        )
    return rows


def both(generated: ArrayLike, reference: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    """Both sets, validated and of equal width."""
    x, y = embeddings_of(generated, least), embeddings_of(reference, least, "reference")
    check_widths(x.shape[1], y.shape[1])
    return x, y


def check_widths(x: int, y: int) -> None:
    """EvaluationError where the sets cannot come from one encoder."""
    if x != y:
        raise EvaluationError(f"embeddings of different widths, {x} and {y}; use one encoder for both sets")


def distance_blocks(x: Array, y: Array, metric: str = "euclidean") -> Iterator[tuple[slice, Array]]:
    """(rows of x, their distances to all of y [rows, M]), block by block; exactly zero between equal rows."""
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        yield rows, cdist(x[rows], y, metric)


@dataclass(frozen=True)
class Gaussian:
    """A set of embeddings as a Gaussian: mean [E] and a factor [R, E] of its covariance, factor' factor."""

    mean: Array
    factor: Array

    @property
    def variance(self) -> float:
        """The trace of the covariance."""
        return float(np.square(self.factor).sum())


def gaussian(embeddings: ArrayLike) -> Gaussian:
    """The mean and unbiased covariance of embeddings [N, E]; N must be at least 2."""
    rows = embeddings_of(embeddings)
    mean = rows.mean(axis=0)
    factor = (rows - mean) / np.sqrt(len(rows) - 1)
    if factor.shape[0] > factor.shape[1]:
        factor = np.linalg.qr(factor, mode="r")  # [N, E] -> [E, E], the same covariance
    return Gaussian(mean, factor)


def frechet_between(x: Gaussian, y: Gaussian) -> float:
    """The squared Frechet distance between two Gaussians of the same width; never below zero."""
    check_widths(len(x.mean), len(y.mean))
    overlap = np.linalg.svd(x.factor @ y.factor.T, compute_uv=False).sum()
    shift = np.square(x.mean - y.mean).sum()
    return max(0.0, float(shift + x.variance + y.variance - 2.0 * overlap))


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """The squared Frechet distance between embeddings x [N, E] and y [M, E], in float64.

    Biased upwards for small sets, so that only values from equally many clips compare.
    """
    return frechet_between(gaussian(x), gaussian(y))


class FrechetOfRows:
    """The distance of any rows of `embeddings` [N, E] from one reference, for resampling.

    What all draws have in common is computed once: the covariances of rows meet the reference only in the products of
    embeddings and its factor, [N, R], which are turned into the at most N dimensions that they span.
    """

    def __init__(self, embeddings: ArrayLike, reference: Gaussian) -> None:
        self._embeddings = embeddings_of(embeddings)
        check_widths(self._embeddings.shape[1], len(reference.mean))
        self._reference = reference
        products = self._embeddings @ reference.factor.T  # [N, R]
        if products.shape[0] < products.shape[1]:
            products = np.transpose(np.linalg.qr(products.T, mode="r"))  # [N, N], the same products with each other
        self._products = products

    def __call__(self, rows: Rows) -> float:
        """The squared distance of the embeddings at `rows` [n], repeats counted as often as they stand there."""
        chosen, products = self._embeddings[rows], self._products[rows]
        mean = chosen.mean(axis=0)
        variance = np.square(chosen - mean).sum() / (len(rows) - 1)
        overlap = np.linalg.svd(products - products.mean(axis=0), compute_uv=False).sum() / np.sqrt(len(rows) - 1)
        shift = np.square(mean - self._reference.mean).sum()
        return max(0.0, float(shift + variance + self._reference.variance - 2.0 * overlap))


def frechet_per_clip(clips: Sequence[ArrayLike], reference: Gaussian) -> Array:
    """The squared distance of each clip alone from the reference: [B] (Gui et al. 2024, per-song FAD).

    clips: for each, its embeddings [W, E], one per window. A clip with a single window is a
    Gaussian without spread, |x - mu|^2 + tr(Y) (ours): the clips farthest from the reference come out last.
    """
    distances = []
    for clip in clips:
        windows = embeddings_of(clip, least=1)
        check_widths(windows.shape[1], len(reference.mean))
        point = Gaussian(windows[0], np.zeros((1, windows.shape[1])))
        distances.append(frechet_between(gaussian(windows) if len(windows) > 1 else point, reference))
    return np.array(distances)


SIZES, DRAWS = 8, 3
"""Sizes of subsets, evenly spaced in 1/n, and subsets of each (ours)."""

SMALLEST_FRACTION = 0.4
"""The smallest subset, as a share of the clips (ours): below, terms of higher order in 1/n bend the line."""

FRECHET_INFINITY_MIN_CLIPS = 20
"""The minimum number of clips for a fit (ours)."""

STRAIGHT = 8.0
"""Clips per dimension of the reference from which on the line is straight enough (ours, see `straight`)."""


def frechet_infinity_interval(
    generated: ArrayLike, reference: Gaussian, seed: int = 0, resamples: int = 100
) -> Interval:
    """The Frechet distance of `generated` [N, E] at infinitely many clips, with its 95 % bootstrap interval over clips.

    May lie below zero for sets that are as good as the reference, and says nothing where it is not `straight`. Centred,
    as that of the distance itself is: resampling repeats clips, and repeats raise the distance.
    """
    x = embeddings_of(generated)
    subsets, distance = _subsets(len(x), seed), FrechetOfRows(x, reference)
    return bootstrap_statistic(
        lambda rows: value_at_infinity(distance, rows, subsets), len(x), seed, resamples, centred_interval
    )


def straight(count: int, reference: Gaussian) -> bool:
    """Whether `count` clips suffice for the distance to be linear in 1/n (ours).

    With few clips per dimension it is a curve however well a line fits, and its end at infinity may be far off on
    either side. Dimensions count by what they add to the distance: (sum of s)^2 / sum of s^2 over the reference's
    standard deviations s along its axes, which is E where all are equal.
    """
    deviations = np.linalg.svd(reference.factor, compute_uv=False)
    total = float(np.square(deviations).sum())
    return total > 0 and count >= STRAIGHT * float(deviations.sum()) ** 2 / total


def value_at_infinity(distance: Callable[[Rows], float], rows: Rows, subsets: list[Rows]) -> float:
    """The least-squares line through the distances of rows[s] for each s of `subsets`, against 1 / len(s), at 0."""
    inverse = [1.0 / len(subset) for subset in subsets]
    return float(np.polyfit(inverse, [distance(rows[subset]) for subset in subsets], 1)[1])


def _subsets(count: int, seed: int) -> list[Rows]:
    """Which of `count` clips each subset holds; the same draws for every resample."""
    if count < FRECHET_INFINITY_MIN_CLIPS:
        raise EvaluationError(
            f"{count} clips given, an extrapolation needs at least {FRECHET_INFINITY_MIN_CLIPS}; evaluate more clips"
        )
    inverse = np.linspace(1.0 / (SMALLEST_FRACTION * count), 1.0 / count, SIZES)
    rng = np.random.default_rng(seed)
    subsets = []
    for size in np.round(1.0 / inverse).astype(int):
        draws = 1 if size == count else DRAWS
        subsets += [rng.choice(count, size=size, replace=False) for _ in range(draws)]
    return subsets


KERNEL_SCALE = 100.0
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


def kernel_distance_interval(
    generated: ArrayLike, reference: ArrayLike, seed: int = 0, resamples: int = 1000
) -> Interval:
    """KAD with its 95 % percentile interval over the generated clips; the reference is held fixed."""
    x, y = both(generated, reference)
    return bootstrap_statistic(_kernel_of_rows(x, y), len(x), seed, resamples)


def _kernel_of_rows(x: Array, y: Array) -> Callable[[Rows], float]:
    """KAD of any rows of x. A clip that is drawn twice makes no pair with itself (ours): it would be a pair of
    identical clips that was never generated, and the estimate would no longer be unbiased."""
    width = 2.0 * median_bandwidth(y) ** 2
    within = np.exp(-cdist(x, x, "sqeuclidean") / width)
    np.fill_diagonal(within, 0.0)
    across = np.concatenate([np.exp(-apart / width).mean(axis=1) for _, apart in distance_blocks(x, y, "sqeuclidean")])
    alike = sum(float(np.exp(-apart / width).sum()) for _, apart in distance_blocks(y, y, "sqeuclidean"))
    among = (alike - len(y)) / (len(y) * (len(y) - 1))  # less the pairs of a clip with itself

    def of(rows: Rows) -> float:
        times = np.bincount(rows, minlength=len(x)).astype(np.float64)
        pairs = times.sum() ** 2 - np.square(times).sum()
        inner = times @ within @ times / pairs if pairs > 0 else 1.0
        return KERNEL_SCALE * float(inner + among - 2.0 * (times @ across) / times.sum())

    return of


MAUVE_SCALING = 5.0
EXPLAINED = 0.9
MIXTURES = 25
RESTARTS = 5
MAUVE_MIN_CLIPS = 20
"""Clips in the smaller set that make two clusters of ten."""

Labels = NDArray[np.int64]


def mauve_interval(generated: ArrayLike, reference: ArrayLike, seed: int = 0, resamples: int = 1000) -> Interval:
    """-ln MAUVE with its 95 % bootstrap interval over the generated clips.

    The clusters are held fixed (ours). Centred: resampled shares are noisier than those at hand, so they lie farther
    from any other.
    """
    p, q, clusters = _quantized(generated, reference, seed)
    target = _shares(q, clusters)
    interval = bootstrap_statistic(
        lambda rows: mauve_of_histograms(_shares(p[rows], clusters), target), len(p), seed, resamples, centred_interval
    )
    return Interval(interval.mean, max(0.0, interval.low), interval.high)


def mauve_of_histograms(p: Array, q: Array) -> float:
    """-ln MAUVE of two distributions over the same clusters, both [K] and summing to one."""
    curve = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, MIXTURES):
        mixture = weight * p + (1 - weight) * q
        curve.append((math.exp(-MAUVE_SCALING * _kl(q, mixture)), math.exp(-MAUVE_SCALING * _kl(p, mixture))))
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
    centres, _ = min((kmeans(points, start) for start in starts), key=lambda result: float(result[1]))
    return vq(points, centres)[0].astype(np.int64)


def _quantized(generated: ArrayLike, reference: ArrayLike, seed: int) -> tuple[Labels, Labels, int]:
    x, y = both(generated, reference)
    smaller = min(len(x), len(y))
    if smaller < MAUVE_MIN_CLIPS:
        raise EvaluationError(f"{smaller} clips in one set, MAUVE's clusters need at least {MAUVE_MIN_CLIPS} in both")
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


RECALL_NEIGHBOUR, COVERAGE_NEIGHBOUR = 3, 5


@dataclass(frozen=True)
class Closeness:
    """Precision, recall, density and coverage, as values per clip.

    inside: [N], whether each generated clip lies in a ball of the reference. reached: [M], whether each reference clip
    lies in a ball of the generated set. density: [N], how many of the reference's balls hold the clip, over k.
    covered: [M], whether each of these balls holds a generated clip.
    """

    inside: Array
    reached: Array
    density: Array
    covered: Array


class Balls:
    """Embeddings [N, E], and the radius of each ball for every k of `neighbours`, computed once."""

    def __init__(
        self,
        embeddings: ArrayLike,
        neighbours: Sequence[int] = (RECALL_NEIGHBOUR, COVERAGE_NEIGHBOUR),
        kind: str = "reference",
    ) -> None:
        self.embeddings = embeddings_of(embeddings, max(neighbours) + 1, kind)
        self.radii = {k: np.empty(len(self.embeddings)) for k in neighbours}
        for rows, apart in distance_blocks(self.embeddings, self.embeddings):
            nearest = np.partition(apart, sorted(neighbours), axis=1)
            for k, radii in self.radii.items():
                radii[rows] = nearest[:, k]  # the nearest of all is the point itself


def closeness(
    generated: ArrayLike, reference: Balls, k: int = RECALL_NEIGHBOUR, coverage_k: int = COVERAGE_NEIGHBOUR
) -> Closeness:
    """Precision, recall, density and coverage of embeddings [N, E]; each set needs more clips than k."""
    y = reference.embeddings
    x = Balls(generated, [k, coverage_k], kind="")
    check_widths(x.embeddings.shape[1], y.shape[1])
    inside, dense = np.empty(len(x.embeddings)), np.empty(len(x.embeddings))
    reached, covered = np.zeros(len(y), dtype=bool), np.zeros(len(y), dtype=bool)
    for rows, apart in distance_blocks(x.embeddings, y):
        within = apart <= reference.radii[coverage_k]
        inside[rows] = (apart <= reference.radii[k]).any(axis=1)
        dense[rows] = within.sum(axis=1) / coverage_k
        reached |= (apart <= x.radii[k][rows, None]).any(axis=0)
        covered |= within.any(axis=0)
    return Closeness(inside, reached.astype(np.float64), dense, covered.astype(np.float64))


def precision(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of generated clips that lie inside the reference."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).inside.mean())


def recall(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of reference clips that lie inside the generated set."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).reached.mean())


def density(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """Mean density of the reference around generated clips (Naeem et al. 2020)."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).density.mean())


def coverage(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """Share of the reference's balls that hold a generated clip."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).covered.mean())


def vendi_interval(embeddings: ArrayLike, seed: int = 0, resamples: int = 300) -> Interval:
    """The Vendi score with its 95 % bootstrap interval over clips.

    Centred: a resample repeats clips and is less diverse than any fresh set of as many. Only sets of as many clips
    compare.
    """
    directions = _directions(embeddings)
    interval = bootstrap_statistic(
        lambda rows: _score(directions[rows]), len(directions), seed, resamples, centred_interval
    )
    return Interval(interval.mean, max(1.0, interval.low), min(float(len(directions)), interval.high))


def _directions(embeddings: ArrayLike) -> Array:
    """Embeddings at unit length."""
    x = embeddings_of(embeddings, least=1)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length == 0).any():
        raise EvaluationError(f"the embedding of clip {int(length.argmin())} is zero, without direction; leave it out")
    return x / length


def _score(directions: Array) -> float:
    # The squared singular values of the directions are the eigenvalues of their cosines, whichever side is smaller.
    gram = directions @ directions.T if len(directions) < directions.shape[1] else directions.T @ directions
    shares = np.clip(np.linalg.eigvalsh(gram) / len(directions), 0.0, None)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

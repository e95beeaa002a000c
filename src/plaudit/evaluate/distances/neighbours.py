"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020): sets as unions of balls.

A set's balls lie around its embeddings; each reaches to the k-th nearest other embedding of the set. k is 3 for
precision and recall and 5 for density and coverage, as in the papers.

- precision: share of generated clips inside any ball of the reference. Do they sound like the reference?
- recall: share of reference clips inside any ball of the generated set. Is all of the reference to be heard?
- density: balls of the reference that a generated clip lies in, mean over clips and divided by k. About 1
  for a set like the reference, and not bounded.
- coverage: share of the reference's balls that hold a generated clip.

Precision and density are means over generated clips, so their intervals are those of means. Recall and coverage are
not, and have no interval: a clip that a resample draws twice is its own nearest neighbour, which shrinks the balls of
recall, and a resample of n clips holds about 0.63 n different ones, which leaves balls empty that the set does cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from plaudit.evaluate.distances.embeddings import Array, both

RECALL_NEIGHBOUR, COVERAGE_NEIGHBOUR = 3, 5


@dataclass(frozen=True)
class Closeness:
    """How two sets lie in each other's balls.

    inside: [N], whether each generated clip lies in a ball of the reference. reached: [M], whether each reference clip
    lies in a ball of the generated set. density: [N], how many of the reference's balls hold the clip, over k.
    covered: [M], whether each of these balls holds a generated clip.
    """

    inside: Array
    reached: Array
    density: Array
    covered: Array


def closeness(
    generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR, coverage_k: int = COVERAGE_NEIGHBOUR
) -> Closeness:
    """All four of embeddings [N, E] against a reference [M, E]; each set needs more clips than either k."""
    x, y = both(generated, reference, least=max(k, coverage_k) + 1)
    apart = cdist(x, y)  # [N, M]
    of_x, of_y = cdist(x, x), cdist(y, y)
    radius_x, radius_y, wide_y = _radii(of_x, k), _radii(of_y, k), _radii(of_y, coverage_k)
    held = apart <= wide_y[None]
    return Closeness(
        inside=(apart <= radius_y[None]).any(axis=1).astype(np.float64),
        reached=(apart <= radius_x[:, None]).any(axis=0).astype(np.float64),
        density=held.sum(axis=1) / coverage_k,
        covered=held.any(axis=0).astype(np.float64),
    )


def _radii(distances: Array, k: int) -> Array:
    """The distance of each point of a set to its k-th nearest other: [N] from [N, N]."""
    return np.partition(distances, k, axis=1)[:, k]  # the nearest of all is the point itself


def precision(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of generated clips that lie inside the reference."""
    return float(closeness(generated, reference, k=k, coverage_k=k).inside.mean())


def recall(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of reference clips that lie inside the generated set."""
    return float(closeness(generated, reference, k=k, coverage_k=k).reached.mean())


def density(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """How densely the reference lies around the generated clips."""
    return float(closeness(generated, reference, k=k, coverage_k=k).density.mean())


def coverage(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """Share of the reference's balls that hold a generated clip."""
    return float(closeness(generated, reference, k=k, coverage_k=k).covered.mean())

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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plaudit.evaluate.distances.embeddings import Array, check_widths, distance_blocks, embeddings_of

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


class Balls:
    """Embeddings [N, E], and the radius of each ball for every k that is asked for, computed once."""

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
    """All four of embeddings [N, E] against a reference; each set needs more clips than either k."""
    y = reference.embeddings
    own = Balls(generated, [k, coverage_k], kind="")
    check_widths(own.embeddings.shape[1], y.shape[1])
    inside, dense = np.empty(len(own.embeddings)), np.empty(len(own.embeddings))
    reached, covered = np.zeros(len(y), dtype=bool), np.zeros(len(y), dtype=bool)
    for rows, apart in distance_blocks(own.embeddings, y):
        held = apart <= reference.radii[coverage_k]
        inside[rows] = (apart <= reference.radii[k]).any(axis=1)
        dense[rows] = held.sum(axis=1) / coverage_k
        reached |= (apart <= own.radii[k][rows, None]).any(axis=0)
        covered |= held.any(axis=0)
    return Closeness(inside, reached.astype(np.float64), dense, covered.astype(np.float64))


def precision(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of generated clips that lie inside the reference."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).inside.mean())


def recall(generated: ArrayLike, reference: ArrayLike, k: int = RECALL_NEIGHBOUR) -> float:
    """Share of reference clips that lie inside the generated set."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).reached.mean())


def density(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """How densely the reference lies around the generated clips."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).density.mean())


def coverage(generated: ArrayLike, reference: ArrayLike, k: int = COVERAGE_NEIGHBOUR) -> float:
    """Share of the reference's balls that hold a generated clip."""
    return float(closeness(generated, Balls(reference, [k]), k=k, coverage_k=k).covered.mean())

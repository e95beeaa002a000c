"""What every distance asks of the embeddings that it is given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from plaudit.errors import EvaluationError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

BLOCK = 1000
"""Rows whose distances to a whole set are in memory at once (ours): a reference may have 50,000 clips."""


def embeddings_of(given: ArrayLike, least: int = 2, kind: str = "") -> Array:
    """`given` as float64 [N, E]; EvaluationError where it is no such array, not finite, or N is below `least`.

    kind: "reference" or nothing, for messages.
    """
    found, kind = np.asarray(given, dtype=np.float64), f"{kind} " if kind else ""
    if found.ndim != 2 or found.shape[1] == 0:
        raise EvaluationError(f"{kind}embeddings must be an array [clips, width], not of shape {list(found.shape)}")
    if len(found) < least:
        counted = f"{len(found)} {kind}embedding{'' if len(found) == 1 else 's'}"
        raise EvaluationError(f"{counted} given, at least {least} needed; take more {kind}clips")
    broken = ~np.isfinite(found).all(axis=1)
    if broken.any():
        first, times = int(broken.argmax()), int(broken.sum())
        raise EvaluationError(
            f"the embedding of {kind}clip {first} is not finite ({times} such of {len(found)}); leave it out"
        )
    return found


def both(generated: ArrayLike, reference: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    """Both sets, checked, and of one width."""
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

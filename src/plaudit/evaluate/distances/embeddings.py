"""What every distance asks of the embeddings that it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.errors import EvaluationError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def embeddings_of(given: ArrayLike, least: int = 2) -> Array:
    """`given` as float64 [N, E]; EvaluationError where it is no such array, not finite, or N is below `least`."""
    found = np.asarray(given, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] == 0:
        raise EvaluationError(f"embeddings must be an array [clips, width], not of shape {list(found.shape)}")
    if len(found) < least:
        counted = f"{len(found)} embedding{'' if len(found) == 1 else 's'}"
        raise EvaluationError(f"{counted} given, at least {least} needed; evaluate more clips")
    broken = ~np.isfinite(found).all(axis=1)
    if broken.any():
        first = int(broken.argmax())
        raise EvaluationError(
            f"the embedding of clip {first} is not finite ({int(broken.sum())} such of {len(found)}); leave them out"
        )
    return found


def both(generated: ArrayLike, reference: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    """Both sets, checked, and of one width."""
    x, y = embeddings_of(generated, least), embeddings_of(reference, least)
    check_widths(x.shape[1], y.shape[1])
    return x, y


def check_widths(x: int, y: int) -> None:
    """EvaluationError where the sets cannot come from one encoder."""
    if x != y:
        raise EvaluationError(f"embeddings of different widths, {x} and {y}; use one encoder for both sets")

"""Vendi score (Friedman and Dieng 2022): how many different clips a set holds, in effect.

The exponential of the Shannon entropy of the eigenvalues of K / n, where K [n, n] holds the cosines of the embeddings:
1 where all are the same, n where all are orthogonal. It needs no reference, so a set can be as diverse as noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances.embeddings import Array, embeddings_of
from plaudit.evaluate.statistics import Interval, bootstrap_statistic, centred_interval


def vendi_score(embeddings: ArrayLike) -> float:
    """The Vendi score of embeddings [N, E]; N may be 1, where it is 1."""
    return _score(_directions(embeddings))


def vendi_interval(embeddings: ArrayLike, seed: int = 0, resamples: int = 300) -> Interval:
    """The Vendi score with its 95 % bootstrap interval over clips.

    Centred: a resample repeats clips and is less diverse than any fresh set of as many. Only sets of as many clips
    compare.
    """
    directions = _directions(embeddings)
    found = bootstrap_statistic(
        lambda rows: _score(directions[rows]), len(directions), seed, resamples, centred_interval
    )
    return Interval(found.mean, max(1.0, found.low), min(float(len(directions)), found.high))


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

"""The Frechet distance between two sets of embeddings, each summed up as a Gaussian.

    d = |mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2))                    (Dowson and Landau, 1982)

With covariances written as A = F_a' F_a and B = F_b' F_b, the last trace is the sum of the singular values of F_a F_b'.
That needs no matrix square root, stays real and accurate when a covariance is singular, and costs little when there
are fewer clips than dimensions, the usual case for a held-out set of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
    """Sum up embeddings [N, E] by their mean and unbiased covariance; N must be at least 2."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise ValueError(f"a Frechet distance needs at least two embeddings as [N, E], not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("an embedding is not finite; evaluate clips that are")
    mean = rows.mean(axis=0)
    factor = (rows - mean) / np.sqrt(len(rows) - 1)
    if factor.shape[0] > factor.shape[1]:
        factor = np.linalg.qr(factor, mode="r")  # [N, E] -> [E, E], the same covariance
    return Gaussian(mean, factor)


def frechet_between(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet distance between two Gaussians of the same width; never below zero."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"embeddings of different widths: {a.mean.shape[0]} and {b.mean.shape[0]}")
    overlap = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    shift = np.square(a.mean - b.mean).sum()
    return max(0.0, float(shift + a.variance + b.variance - 2.0 * overlap))


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """The squared Frechet distance between embeddings a [N, E] and b [M, E], in float64.

    Biased upwards for small sets, so that only values from equally many clips compare.
    """
    return frechet_between(gaussian(a), gaussian(b))

"""The Frechet distance between two sets of embeddings, each summed up as a Gaussian.

    d = |mu_x - mu_y|^2 + tr(X) + tr(Y) - 2 tr((X Y)^(1/2))                    (Dowson and Landau, 1982)

With covariances written as X = F_x' F_x and Y = F_y' F_y, the last trace is the sum of the singular values of F_x F_y'.
That needs no matrix square root, stays real and accurate when a covariance is singular, and costs little when there
are fewer clips than dimensions, the usual case for a held-out set of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plaudit.evaluate.distances.embeddings import Array, Rows, check_widths, embeddings_of


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

    clips: for each, its embeddings [W, E], one per window in which it was heard. A clip that was heard once is a
    Gaussian without spread, |x - mu|^2 + tr(Y) (ours): the clips farthest from the reference come out last.
    """
    found = []
    for clip in clips:
        windows = embeddings_of(clip, least=1)
        check_widths(windows.shape[1], len(reference.mean))
        point = Gaussian(windows[0], np.zeros((1, windows.shape[1])))
        found.append(frechet_between(gaussian(windows) if len(windows) > 1 else point, reference))
    return np.array(found)

"""Strengths of systems by the Bradley-Terry model with Davidson's parameter for ties.

In a module of its own, which needs NumPy alone: the server chooses pairs by it while a test runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

Ties = Literal["davidson", "half"]

PRIOR_SD = 3.0
"""Standard deviation of the normal prior of a strength: weak, so that a system which always won has a finite strength
(ours)."""


@dataclass(frozen=True)
class Fit:
    """Strengths [..., K] with mean zero, log of the tie parameter [...] (-inf without ties), and the covariance of the
    strengths [..., K, K] by the Laplace approximation."""

    strengths: Array
    tie: Array
    covariance: Array


def fit_bradley_terry(
    wins: ArrayLike, ties: ArrayLike, tie_model: Ties = "davidson", prior_sd: float = PRIOR_SD
) -> Fit:
    """The most probable Bradley-Terry strengths of K systems under a normal prior.

    wins [..., K, K]: how often row i beat column j; ties [..., K, K], symmetric, each counted once a direction. Weights
    need not be whole. Leading dimensions are fitted side by side, as for bootstrap replicates.
    tie_model: "davidson" has a parameter for ties (Davidson, JASA 65, 1970); "half" counts a tie as half a win of
    either, as Music Arena and most arenas do.
    """
    win, tie = _checked(wins, ties, prior_sd)
    if tie_model == "half":
        win, tie = win + tie / 2, np.zeros_like(tie)
    shape, systems = win.shape[:-2], win.shape[-1]
    posterior = _Posterior(win.reshape(-1, systems, systems), tie.reshape(-1, systems, systems), prior_sd)
    theta, hessian = posterior.maximum()
    covariance = np.linalg.inv(hessian)[:, :systems, :systems]
    centre = np.eye(systems) - 1 / systems
    return Fit(
        (theta[:, :systems] @ centre).reshape(*shape, systems),
        np.where(posterior.with_ties, theta[:, systems], -np.inf).reshape(shape),
        (centre @ covariance @ centre).reshape(*shape, systems, systems),
    )


def _checked(wins: ArrayLike, ties: ArrayLike, prior_sd: float) -> tuple[Array, Array]:
    win, tie = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    if win.ndim < 2 or win.shape[-1] != win.shape[-2] or win.shape != tie.shape:
        raise ValueError(f"wins and ties must be square and of one shape, not {win.shape} and {tie.shape}")
    if not (np.isfinite(win).all() and np.isfinite(tie).all() and (win >= 0).all() and (tie >= 0).all()):
        raise ValueError("counts of wins and ties must be finite and not negative")
    if not np.array_equal(tie, np.swapaxes(tie, -1, -2)):
        raise ValueError("ties must be symmetric: i against j is j against i")
    if not prior_sd > 0:
        raise ValueError(f"the prior's standard deviation must be above zero, not {prior_sd}")
    return win, tie


class _Posterior:
    """The log posterior of R fits side by side. Parameters theta [R, K + 1] are strengths and the log of the tie
    parameter. wins, ties: [R, K, K]."""

    def __init__(self, wins: Array, ties: Array, prior_sd: float) -> None:
        self.wins, self.ties = wins, ties
        self.systems = wins.shape[-1]
        self.with_ties = ties.sum((1, 2)) > 0
        self.total = wins + wins.swapaxes(1, 2) + ties  # both directions, so that sums over j are a system's
        self.pull = np.full(self.systems + 1, prior_sd**-2.0)

    def value(self, theta: Array) -> Array:
        """The log posterior [R], up to a constant."""
        logs = _outcomes(theta, self.with_ties)
        wins_part = (self.wins * logs[0]).sum((1, 2))
        ties_part = (self.ties * np.where(self.ties > 0, logs[2], 0.0)).sum((1, 2)) / 2
        return np.asarray(wins_part + ties_part - (self.pull * theta**2).sum(1) / 2)

    def slope_and_hessian(self, theta: Array) -> tuple[Array, Array]:
        """Its gradient [R, K + 1] and the negative of its Hessian [R, K + 1, K + 1]."""
        systems, total = self.systems, self.total
        first, second, even = (np.exp(part) for part in _outcomes(theta, self.with_ties))
        gap = first - second
        slope = np.zeros_like(theta)
        slope[:, :systems] = ((self.wins - self.wins.swapaxes(1, 2) - total * gap) / 2).sum(2)
        slope[:, systems] = ((self.ties - total * even) / 2).sum((1, 2))
        hessian = np.zeros((len(theta), systems + 1, systems + 1))
        curvature = total * (first + second - gap**2) / 4
        hessian[:, :systems, :systems] = -curvature
        places = np.arange(systems)
        hessian[:, places, places] = curvature.sum(2) - curvature[:, places, places]
        cross = -(total * even * gap / 2).sum(2)
        hessian[:, :systems, systems] = hessian[:, systems, :systems] = cross
        hessian[:, systems, systems] = (total * even * (1 - even)).sum((1, 2)) / 2
        slope -= self.pull * theta
        hessian[:, np.arange(systems + 1), np.arange(systems + 1)] += self.pull
        return slope, hessian

    def maximum(self) -> tuple[Array, Array]:
        """The parameters of its maximum, by Newton's method, and the negative Hessian there."""
        theta = np.zeros((len(self.wins), self.systems + 1))
        value = self.value(theta)
        for _ in range(100):
            slope, hessian = self.slope_and_hessian(theta)
            step = np.asarray(np.linalg.solve(hessian, slope[..., None])[..., 0], dtype=np.float64)
            step, value = self._shortened(theta, step, value)
            theta = theta + step
            if np.abs(step).max() < 1e-8:
                break
        return theta, hessian

    def _shortened(self, theta: Array, step: Array, value: Array) -> tuple[Array, Array]:
        """A step [R, K + 1] halved wherever it would go down, and the value behind it."""
        size = np.ones(len(theta))
        for _ in range(20):
            proposed = self.value(theta + size[:, None] * step)
            worse = proposed < value - 1e-9 * (1 + np.abs(value))
            if not worse.any():
                break
            size[worse] /= 2
        return size[:, None] * step, proposed


def _outcomes(theta: Array, with_ties: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Logs of the probabilities that i beats j, that j beats i, and that they tie: [R, K, K] each."""
    half = (theta[:, :-1, None] - theta[:, None, :-1]) / 2
    even = np.where(with_ties, theta[:, -1], -np.inf)[:, None, None] + np.zeros_like(half)
    total = np.logaddexp(np.logaddexp(half, -half), even)
    return half - total, -half - total, even - total

"""Strengths against closed forms and a logistic regression."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from plaudit.reward.bradley_terry import fit_bradley_terry
from plaudit.reward.leaderboard import outcome_counts
from tests.studio.listening.statistics.simulated import simulated


def test_two_systems_have_the_log_odds_of_their_wins() -> None:
    fit = fit_bradley_terry([[0, 30], [10, 0]], np.zeros((2, 2)), prior_sd=1e3)
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(math.log(3), abs=1e-4)
    assert fit.strengths.sum() == pytest.approx(0) and fit.tie == -math.inf


def test_strengths_are_those_of_a_logistic_regression() -> None:
    answers = simulated({"u": 1.0, "v": 0.2, "w": -0.5, "x": 0.0}, 10, 40)
    names = ["u", "v", "w", "x"]
    design = np.array([[(x.system_a == n) - (x.system_b == n) for n in names] for x in answers], dtype=float)
    reference = sm.GLM(np.array([x.winner == "a" for x in answers]), design[:, 1:], sm.families.Binomial()).fit()
    expected = np.concatenate([[0.0], reference.params])
    wins, ties = outcome_counts(answers, names)
    fit = fit_bradley_terry(wins[0], ties[0], prior_sd=1e4)
    np.testing.assert_allclose(fit.strengths, expected - expected.mean(), atol=1e-5)
    gaps = fit.covariance[1:, 1:] - fit.covariance[:1, 1:] - fit.covariance[1:, :1] + fit.covariance[0, 0]
    np.testing.assert_allclose(gaps, reference.cov_params(), rtol=1e-4)


def test_davidsons_model_of_ties_is_at_its_maximum() -> None:
    random = np.random.default_rng(3)
    wins = random.integers(0, 20, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    ties = random.integers(0, 9, (4, 4)).astype(float)
    ties = np.triu(ties, 1) + np.triu(ties, 1).T

    def loss(theta: np.ndarray) -> float:
        total = 0.0
        for i, j in combinations(range(4), 2):
            strong = np.exp([theta[i], theta[j], theta[4] + (theta[i] + theta[j]) / 2])
            total -= np.log(strong / strong.sum()) @ [wins[i, j], wins[j, i], ties[i, j]]
        return float(total + (theta**2).sum() / 2 / 9)

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    fit = fit_bradley_terry(wins, ties, prior_sd=3.0)
    np.testing.assert_allclose(fit.strengths, best[:4] - best[:4].mean(), atol=1e-5)
    assert float(fit.tie) == pytest.approx(best[4], abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_fits_side_by_side_are_the_fits_one_by_one(seed: int, systems: int) -> None:
    random = np.random.default_rng(seed)
    wins = random.integers(0, 6, (3, systems, systems)).astype(float)
    ties = random.integers(0, 3, (3, systems, systems)).astype(float)
    for k in range(3):
        np.fill_diagonal(wins[k], 0)
        ties[k] = np.triu(ties[k], 1) + np.triu(ties[k], 1).T
    ties[1] = 0
    together = fit_bradley_terry(wins, ties)
    alone = [fit_bradley_terry(w, t) for w, t in zip(wins, ties, strict=True)]
    np.testing.assert_allclose(together.strengths, [fit.strengths for fit in alone], atol=1e-6)
    np.testing.assert_allclose(together.covariance, [fit.covariance for fit in alone], atol=1e-6)
    turned = fit_bradley_terry(wins.swapaxes(1, 2), ties)
    np.testing.assert_allclose(turned.strengths, -together.strengths, atol=1e-6)


def test_a_system_that_always_wins_has_a_finite_strength() -> None:
    fit = fit_bradley_terry([[0, 1000], [0, 0]], np.zeros((2, 2)))
    assert 3 < fit.strengths[0] < 20


@pytest.mark.parametrize(
    ("wins", "ties", "said"),
    [
        ([[0, 1]], [[0, 1]], "square"),
        ([[0, -1], [0, 0]], np.zeros((2, 2)), "not negative"),
        ([[0, math.nan], [0, 0]], np.zeros((2, 2)), "finite"),
        (np.zeros((2, 2)), [[0, 1], [0, 0]], "symmetric"),
    ],
)
def test_counts_that_are_none_are_refused(wins: object, ties: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_bradley_terry(wins, ties)  # type: ignore[arg-type]

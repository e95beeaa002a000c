"""-ln MAUVE: shares with known areas, clusters that are plain to see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances import (
    MAUVE_SCALING,
    MIXTURES,
    mauve_interval,
    mauve_of_histograms,
    quantize,
)


def mauve_divergence(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    return mauve_interval(x, y, seed, resamples=2).mean


def test_equal_shares_are_at_zero() -> None:
    assert mauve_of_histograms(np.array([0.25, 0.75]), np.array([0.25, 0.75])) == pytest.approx(0.0, abs=1e-9)


def test_shares_with_nothing_in_common_have_a_closed_form() -> None:
    """KL(Q | R) = -ln(1 - w) and KL(P | R) = -ln w, so the curve is ((1 - w)^5, w^5): Beta(6, 6) * 5 under it."""
    found = math.exp(-mauve_of_histograms(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    exact = 5 * math.gamma(5) * math.gamma(6) / math.gamma(11)
    assert found == pytest.approx(exact, abs=2e-3)
    w = np.linspace(1e-6, 1 - 1e-6, MIXTURES)
    x, y = np.r_[0, np.sort((1 - w) ** MAUVE_SCALING), 1], np.r_[1, np.sort(w**MAUVE_SCALING)[::-1], 0]
    assert found == pytest.approx(np.trapezoid(y, x), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), st.integers(0, 1000))
def test_it_is_symmetric_not_negative_and_blind_to_order(weights: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.array(weights) / sum(weights)
    q = rng.dirichlet(np.ones(len(p)))
    order = rng.permutation(len(p))
    assert mauve_of_histograms(p, q) >= 0
    assert mauve_of_histograms(q, p) == pytest.approx(mauve_of_histograms(p, q), abs=1e-9)
    assert mauve_of_histograms(p[order], q[order]) == pytest.approx(mauve_of_histograms(p, q), abs=1e-9)


def test_well_separated_clusters_are_recovered() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = rng.integers(0, 3, 90)
    labels = quantize(centres[truth] + 0.1 * rng.normal(size=(90, 2)), 3, seed=0)
    assert all(len(set(labels[truth == k])) == 1 for k in range(3)) and len(set(labels)) == 3
    assert set(quantize(np.ones((5, 1)), 3, seed=0)) == {0}
    assert len(set(quantize(np.arange(2.0).repeat(5)[:, None], 3, seed=0))) == 2


def test_sets_in_two_groups_are_compared_by_their_proportions() -> None:
    """Twenty and twenty clips make two clusters; 15 : 5 against 5 : 15."""
    rng = np.random.default_rng(1)
    group = np.r_[np.zeros(15, dtype=int), np.ones(5, dtype=int)]
    x, y = (np.eye(3)[own] * rng.uniform(1, 9, (20, 1)) + 0.01 * rng.normal(size=(20, 3)) for own in (group, 1 - group))
    expected = mauve_of_histograms(np.array([0.75, 0.25]), np.array([0.25, 0.75]))
    assert mauve_divergence(x, y) == pytest.approx(expected)
    assert mauve_divergence(x, x) == pytest.approx(0.0, abs=1e-9)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert mauve_divergence(rng.permutation(x) @ turn, y @ turn) == pytest.approx(expected)
    interval = mauve_interval(x, y)
    assert 0 <= interval.low < interval.mean == pytest.approx(expected) and interval.high > expected


def test_the_same_seed_gives_the_same_number() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 8)), rng.normal(size=(90, 8)) + 0.5
    assert mauve_divergence(x, y, seed=3) == mauve_divergence(x, y, seed=3)
    assert mauve_divergence(x, y) < mauve_divergence(x + 3, y)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.eye(19), np.eye(19), "19 clips in one set, MAUVE's clusters need at least 20"),
        (np.ones((20, 2)), np.ones((20, 2)), "all embeddings of both sets are the same"),
        (np.full((20, 2), np.inf), np.ones((20, 2)), "not finite"),
        (np.ones((20, 2)), np.ones((20, 3)), "widths, 2 and 3"),
    ],
)
def test_bad_input_is_one_line(x: np.ndarray, y: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        mauve_divergence(x, y)


def test_one_set_without_spread_is_far_from_another_with_some() -> None:
    y = np.random.default_rng(4).normal(size=(40, 3)) - np.array([4.0, 0.0, 0.0])
    assert mauve_divergence(np.full((40, 3), 9.0), y) > 3

"""Precision, recall, density and coverage of sets whose balls can be drawn on paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate import distances
from plaudit.evaluate.distances import Balls, closeness, coverage, density, precision, recall

REFERENCE = np.array([[0.0], [1.0], [3.0]])
"""With k = 1 its balls are 0 +- 1, 1 +- 1 and 3 +- 2."""
GENERATED = np.array([[0.5], [2.5], [9.0]])
"""With k = 1 its balls are 0.5 +- 2, 2.5 +- 2 and 9 +- 6.5."""


def test_by_hand() -> None:
    assert precision(GENERATED, REFERENCE, k=1) == pytest.approx(2 / 3)  # 9 is outside
    assert recall(GENERATED, REFERENCE, k=1) == 1.0
    assert density(GENERATED, REFERENCE, k=1) == pytest.approx((2 + 1 + 0) / 3)
    assert coverage(GENERATED, REFERENCE, k=1) == 1.0
    one_place = np.array([[0.4], [0.5], [0.45]])
    assert recall(one_place, REFERENCE, k=1) == 0.0
    assert coverage(one_place, REFERENCE, k=1) == pytest.approx(2 / 3)
    assert density(one_place, REFERENCE, k=1) == 2.0


def test_an_outlier_in_the_reference_fools_precision_but_not_density() -> None:
    """The case for density (Naeem et al. 2020): one far reference clip makes a huge ball."""
    rng = np.random.default_rng(0)
    reference = np.concatenate([rng.normal(size=(100, 2)), [[60.0, 0.0]]])
    generated = rng.normal(size=(100, 2)) * 0.5 + np.array([30.0, 0.0])
    assert precision(generated, reference) == 1.0
    assert density(generated, reference) < 0.25


def test_sets_of_one_distribution_come_out_as_the_papers_say() -> None:
    """E[coverage] = 1 - ((M - 1) ... (M - k)) / ((N + M - 1) ... (N + M - k)) for k of M (Naeem et al. 2020, eq. 7)."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1000, 4)), rng.normal(size=(1000, 4))
    expected = 1 - np.prod([(1000 - i) / (2000 - i) for i in range(1, 6)])
    found = closeness(x, Balls(y))
    assert found.covered.mean() == pytest.approx(expected, abs=0.03)
    assert found.density.mean() == pytest.approx(1.0, abs=0.06)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 20), st.integers(6, 20), st.integers(1, 6))
def test_order_rotation_and_scale_do_not_matter(seed: int, n: int, m: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.3
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    for metric in (precision, recall, density, coverage):
        expected = pytest.approx(metric(x, y), abs=1e-12)
        assert metric(rng.permutation(x), rng.permutation(y)) == expected
        assert metric(2 * x @ turn, 2 * y @ turn) == expected
    assert precision(x, x) == recall(x, x) == coverage(x, x) == 1.0
    assert recall(x, y) == precision(y, x)


def test_results_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3))
    whole = closeness(x, Balls(y))
    monkeypatch.setattr(distances, "BLOCK", 7)
    for name, values in vars(closeness(x, Balls(y))).items():
        np.testing.assert_array_equal(values, getattr(whole, name))


def test_identical_clips_cover_only_identical_references() -> None:
    y = np.random.default_rng(2).normal(size=(10, 2))
    assert recall(np.tile(y[0], (8, 1)), y) == pytest.approx(0.1)
    assert precision(np.tile(y[0], (8, 1)), y) == 1.0


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.eye(5), "5 embeddings given, at least 6 needed"),
        (np.ones((8, 3)), "widths, 3 and 9"),
        (np.full((8, 9), np.nan), "not finite"),
    ],
)
def test_bad_input_is_one_line(x: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        closeness(x, Balls(np.eye(9)))
    with pytest.raises(EvaluationError, match="4 reference embeddings given, at least 6 needed"):
        closeness(np.eye(4), Balls(np.eye(4)))

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.evaluate.distances.frechet import Gaussian as Summary
from plaudit.evaluate.distances.frechet import frechet_between, frechet_distance, gaussian


def textbook(a: np.ndarray, b: np.ndarray) -> float:
    """The definition as usually computed, with a matrix square root."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(cov_a + cov_b) - 2 * np.trace(root).real)


def test_a_shift_alone_is_its_squared_length() -> None:
    points = np.random.default_rng(0).normal(size=(40, 6))
    shift = np.array([3.0, 0.0, -4.0, 0.0, 0.0, 0.0])
    assert frechet_distance(points, points + shift) == pytest.approx(25.0, abs=1e-9)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first = Summary(np.zeros(3), np.diag([1.0, 2.0, 3.0]))
    second = Summary(np.array([1.0, 0.0, 2.0]), np.diag([4.0, 2.0, 0.5]))
    assert frechet_between(first, second) == pytest.approx(5.0 + 3.0**2 + 0.0 + 2.5**2)


def test_it_agrees_with_the_definition_by_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 12)), rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) + 0.3
    assert frechet_distance(a, b) == pytest.approx(textbook(a, b), rel=1e-9)


def test_large_samples_approach_the_distance_of_their_distributions() -> None:
    rng = np.random.default_rng(2)
    distance = frechet_distance(rng.normal(size=(20000, 4)), 2.0 * rng.normal(size=(20000, 4)) + 1.0)
    assert distance == pytest.approx(4 * 1.0 + 4 * (2.0 - 1.0) ** 2, rel=0.03)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 40), st.integers(1, 30))
def test_it_is_a_distance(seed: int, n: int, m: int, dim: int) -> None:
    """Symmetric, zero of itself, blind to rotation, also with fewer clips than dimensions."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 1.0
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    distance = frechet_distance(a, b)
    assert distance >= 0.0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(3), np.full((4, 3), np.nan)])
def test_what_has_no_covariance_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="embedding"):
        gaussian(bad)


def test_widths_must_agree() -> None:
    with pytest.raises(ValueError, match="widths: 3 and 4"):
        frechet_distance(np.eye(3), np.eye(4))

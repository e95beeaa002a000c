import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate import frechet_distance
from plaudit.evaluate.distances import FrechetOfRows, frechet_between, frechet_per_clip, gaussian
from plaudit.evaluate.distances import Gaussian as Summary


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


def test_gaussians_that_are_turned_have_a_closed_form() -> None:
    """Covariances that do not commute: in two dimensions tr (A B)^(1/2) is (tr AB + 2 sqrt(det AB))^(1/2)."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    first, second = np.diag([2.0, 1.0]), np.diag([3.0, 0.5]) @ turn
    a, b = first.T @ first, second.T @ second
    trace = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    found = frechet_between(Summary(np.zeros(2), first), Summary(np.array([1.0, 2.0]), second))
    assert found == pytest.approx(5.0 + np.trace(a) + np.trace(b) - 2 * trace, abs=1e-9)


def test_samples_with_exact_moments_have_the_distance_of_their_gaussians() -> None:
    """Points at +-s along each axis have mean 0 and variance 2 s^2 / (2 E - 1): the closed form, to 1e-6."""
    x, y = (np.concatenate([np.diag(s), -np.diag(s)]) for s in (np.array([1.0, 2, 3]), np.array([2.0, 2, 5])))
    gaps = np.array([1.0, 0.0, 2.0]) * np.sqrt(2 / 5)
    assert frechet_distance(x, y + 0.5) == pytest.approx(3 * 0.25 + np.square(gaps).sum(), abs=1e-6)


def test_the_size_of_the_published_evaluation() -> None:
    """100 x 512 against 706 x 512, float32 as encoders give it: exact where clips are fewer than dimensions."""
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(n, 512)).astype(np.float32) for n in (100, 706))
    shift = np.full(512, 0.5, dtype=np.float32)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(x + shift, x) == pytest.approx(128.0, rel=1e-6)
    few = frechet_distance(x, y)
    more = frechet_distance(x.astype(np.float64) + 1e-9, y)
    assert few > 0 and few == pytest.approx(more, rel=1e-6)


def test_resampled_rows_give_what_the_distance_of_these_rows_is() -> None:
    rng = np.random.default_rng(4)
    for n, m, dim in ((12, 30, 5), (6, 40, 20), (30, 8, 20)):
        x, reference = rng.normal(size=(n, dim)), gaussian(rng.normal(size=(m, dim)) + 0.5)
        rows = rng.integers(0, n, size=n)
        expected = frechet_between(gaussian(x[rows]), reference)
        assert FrechetOfRows(x, reference)(rows) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_clip_alone_is_a_point_or_what_its_windows_are() -> None:
    reference = Summary(np.array([1.0, 0.0]), np.diag([1.0, 2.0]))
    windows = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 5.0]])
    point, heard_thrice = frechet_per_clip([windows[:1], windows], reference)
    assert point == pytest.approx(1.0 + 5.0)
    assert heard_thrice == pytest.approx(frechet_between(gaussian(windows), reference))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((1, 3)), "1 embedding given, at least 2 needed"),
        (np.zeros(3), "not of shape"),
        (np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 1.0]]), "clip 1 is not finite .2 such of 3"),
    ],
)
def test_sets_without_a_covariance_are_refused(bad: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        gaussian(bad)


def test_widths_must_agree() -> None:
    with pytest.raises(EvaluationError, match="widths, 3 and 4"):
        frechet_distance(np.eye(3), np.eye(4))


def test_a_set_without_spread_has_a_distance() -> None:
    assert frechet_distance(np.ones((5, 3)), np.ones((4, 3))) == 0.0
    assert frechet_distance(np.ones((5, 2)), np.array([[0.0, 1.0], [2.0, 1.0]])) == pytest.approx(2.0)

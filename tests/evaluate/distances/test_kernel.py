"""KAD: computed by hand, unbiased, and with an interval that holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate import distances
from plaudit.evaluate.distances import kernel_distance_interval, median_bandwidth


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    return kernel_distance_interval(x, y, resamples=2).mean


def test_by_hand() -> None:
    """Reference 0, 2, 4: distances 2, 2, 4, so s = 2 and k = exp(-d^2 / 8). Generated 0 and 2."""
    x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [2.0], [4.0]])
    assert median_bandwidth(y) == 2.0
    near, far = math.exp(-0.5), math.exp(-2.0)
    across = (1 + near + far + near + 1 + near) / 6
    assert kernel_distance(x, y) == pytest.approx(100 * (near + (2 * near + far) / 3 - 2 * across))


def test_gaussians_have_a_closed_form() -> None:
    """N(0, I) and N(m, I) in E dimensions: E k is (s^2 / (s^2 + 2))^(E/2), between the two times
    exp(-|m|^2 / (2 (s^2 + 2)))."""
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(8):
        x, y = rng.normal(size=(500, 3)) + np.array([1.0, 0, 0]), rng.normal(size=(500, 3))
        s2 = median_bandwidth(y) ** 2
        expected.append(200 * (s2 / (s2 + 2)) ** 1.5 * (1 - math.exp(-1 / (2 * (s2 + 2)))))
        found.append(kernel_distance(x, y))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.06)


def test_it_is_unbiased_however_few_the_clips() -> None:
    rng = np.random.default_rng(1)
    found = [kernel_distance(rng.normal(size=(8, 4)), rng.normal(size=(40, 4))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(300)
    assert min(found) < 0


def test_the_interval_holds_the_truth_and_is_not_shifted_by_repeats() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=(200, 4))
    truth = kernel_distance(rng.normal(size=(4000, 4)) + 0.4, y)
    found = [kernel_distance_interval(rng.normal(size=(50, 4)) + 0.4, y, seed, 200) for seed in range(40)]
    assert 34 <= sum(i.low <= truth <= i.high for i in found)
    assert np.mean([(i.low + i.high) / 2 - i.mean for i in found]) == pytest.approx(0.0, abs=0.3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(3, 12), st.integers(1, 8))
def test_order_and_rotation_and_scale_do_not_matter(seed: int, n: int, m: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.5
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    expected = pytest.approx(kernel_distance(x, y), abs=1e-9)
    assert kernel_distance(rng.permutation(x), rng.permutation(y)) == expected
    assert kernel_distance(3 * x @ turn + 1, 3 * y @ turn + 1) == expected


def test_results_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3))
    whole = kernel_distance(x, y)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(distances, "MEDIAN_OF", 30)
    assert median_bandwidth(y) == pytest.approx(median_bandwidth(y[:30]), rel=0.2)
    assert median_bandwidth(y) == median_bandwidth(y)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.eye(3), np.ones((6, 3)), "the same, so a kernel has no width"),
        (np.eye(3)[:1], np.eye(3), "1 embedding given"),
        (np.eye(3), np.eye(4), "widths, 3 and 4"),
        (np.full((3, 3), np.nan), np.eye(3), "not finite"),
    ],
)
def test_bad_input_is_one_line(x: np.ndarray, y: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        kernel_distance(x, y)


def test_generated_clips_that_are_all_the_same_have_a_distance() -> None:
    assert kernel_distance(np.zeros((4, 2)), np.random.default_rng(3).normal(size=(9, 2))) > 0

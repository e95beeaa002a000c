"""The Vendi score of sets that can be counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances import vendi_interval


def vendi_score(x: np.ndarray) -> float:
    return vendi_interval(x, resamples=2).mean


def test_it_counts_distinct_clips() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7.0)
    assert vendi_score(np.tile([3.0, 4.0], (9, 1))) == pytest.approx(1.0)
    assert vendi_score(np.repeat(np.eye(4), 5, axis=0)) == pytest.approx(4.0)
    assert vendi_score(np.eye(3)[:1]) == pytest.approx(1.0)


def test_two_clips_at_an_angle() -> None:
    """Cosine c: eigenvalues (1 + c) / 2 and (1 - c) / 2."""
    p, q = 0.8, 0.2
    found = vendi_score(np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert found == pytest.approx(math.exp(-p * math.log(p) - q * math.log(q)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(1, 10))
def test_it_lies_between_one_and_the_clips_and_sees_directions_only(seed: int, n: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim))
    found = vendi_score(x)
    assert 1 - 1e-9 <= found <= min(n, dim) + 1e-9
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    lengths = rng.uniform(0.1, 5, size=(n, 1))
    assert vendi_score(rng.permutation(lengths * x) @ turn) == pytest.approx(found)
    assert vendi_score(np.concatenate([x, x])) == pytest.approx(found)


def test_the_interval_lies_around_the_score() -> None:
    x = np.random.default_rng(0).normal(size=(60, 20))
    interval = vendi_interval(x)
    assert interval.mean == pytest.approx(vendi_score(x))
    assert 1 < interval.low < interval.mean < interval.high <= 60


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((3, 2)), "clip 0 is zero"),
        (np.full((3, 2), np.nan), "not finite"),
        (np.zeros((0, 2)), "0 embeddings given, at least 1"),
    ],
)
def test_bad_input_is_one_line(x: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        vendi_score(x)

"""FAD-infinity: lines are fitted exactly, bias is removed, and intervals cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances import (
    Gaussian,
    frechet_between,
    frechet_infinity_interval,
    gaussian,
    straight,
    value_at_infinity,
)


def standard(dim: int) -> Gaussian:
    return Gaussian(np.zeros(dim), np.eye(dim))


def frechet_infinity(x: np.ndarray, reference: Gaussian, seed: int = 0) -> float:
    return frechet_infinity_interval(x, reference, seed, resamples=2).mean


def test_a_line_in_one_over_n_is_fitted_exactly() -> None:
    subsets = [np.arange(n) for n in (10, 20, 40, 80)]
    assert value_at_infinity(lambda rows: 3.0 + 7.0 / len(rows), np.arange(80), subsets) == pytest.approx(3.0)


def test_extrapolation_removes_the_bias_of_few_clips() -> None:
    """N(0.2, 1.21 I) against N(0, I) in 8 dimensions: 8 * 0.04 + 8 * 0.1^2 = 0.4."""
    rng = np.random.default_rng(0)
    sets = [1.1 * rng.normal(size=(160, 8)) + 0.2 for _ in range(12)]
    plain = np.mean([frechet_between(gaussian(x), standard(8)) for x in sets])
    far = np.mean([frechet_infinity(x, standard(8)) for x in sets])
    assert plain > 0.55
    assert far == pytest.approx(0.4, abs=0.1)


def test_interval_coverage_is_near_nominal() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(20):
        x = 1.1 * rng.normal(size=(100, 4)) + 0.2
        interval = frechet_infinity_interval(x, standard(4), seed, resamples=60)
        held += interval.low <= 4 * 0.04 + 4 * 0.01 <= interval.high
        assert interval.low < interval.mean < interval.high
    assert held >= 16


def test_it_depends_on_the_seed_alone() -> None:
    x = np.random.default_rng(2).normal(size=(40, 3))
    assert frechet_infinity(x, standard(3), 5) == frechet_infinity(x, standard(3), 5)
    assert frechet_infinity(x, standard(3), 5) != frechet_infinity(x, standard(3), 6)


def test_too_few_clips_are_refused_or_noted() -> None:
    with pytest.raises(EvaluationError, match="19 clips given, an extrapolation needs at least 20"):
        frechet_infinity(np.random.default_rng(3).normal(size=(19, 3)), standard(3))
    assert straight(80, standard(10)) and not straight(79, standard(10))
    assert not straight(80, Gaussian(np.zeros(3), np.zeros((2, 3))))

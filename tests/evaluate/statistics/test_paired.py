"""Paired statistics against SciPy, by hand where that is possible."""

import itertools

import numpy as np
import pytest
from scipy import stats

from plaudit.statistics import (
    RESAMPLES,
    Interval,
    bca_mean,
    benjamini_hochberg,
    differences,
    effect_size,
    expanded,
    hedges_correction,
    holm,
    paired_difference,
    sign_flip_test,
)

RNG = np.random.default_rng(11)
BEFORE = RNG.normal(size=40)
AFTER = BEFORE + RNG.exponential(0.4, size=40) - 0.25


def test_the_paired_difference_agrees_with_scipy() -> None:
    found = paired_difference(AFTER, BEFORE, seed=3)
    assert found.difference.mean == pytest.approx((AFTER - BEFORE).mean(), abs=1e-12)
    assert found.p_t == pytest.approx(stats.ttest_rel(AFTER, BEFORE).pvalue, abs=1e-12)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(AFTER, BEFORE).pvalue, abs=1e-12)
    interval = stats.bootstrap(
        (AFTER, BEFORE), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, method="BCa",
        confidence_level=expanded(40), n_resamples=RESAMPLES, rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(interval), abs=1e-9)
    flipped = stats.permutation_test(
        (AFTER, BEFORE), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        n_resamples=100_000, rng=np.random.default_rng(9),
    ).pvalue  # fmt: skip
    assert found.p_permutation == pytest.approx(flipped, abs=3 * np.sqrt(flipped / RESAMPLES))


def test_a_bca_interval_is_efrons_formula() -> None:
    gaps = AFTER - BEFORE
    n = len(gaps)
    draws = gaps[np.random.default_rng(0).integers(0, n, size=(200_000, n))].mean(axis=1)
    bias = stats.norm.ppf((draws < gaps.mean()).mean())
    lean = (gaps - gaps.mean()) / (n - 1)  # how the mean moves when one clip is left out
    acceleration = (lean**3).sum() / (6 * (lean**2).sum() ** 1.5)
    ends = [bias + stats.norm.ppf(q) for q in (0.5 - expanded(n) / 2, 0.5 + expanded(n) / 2)]
    levels = [stats.norm.cdf(bias + z / (1 - acceleration * z)) for z in ends]
    found = bca_mean(gaps, seed=0, resamples=200_000)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, levels)), abs=2e-3)


def test_the_level_is_expanded_so_that_a_bootstrap_of_normal_values_is_as_wide_as_students() -> None:
    for count in (5, 40, 1000):
        reach = stats.norm.ppf((1 + expanded(count)) / 2) * np.sqrt((count - 1) / count)
        assert reach == pytest.approx(stats.t.ppf(0.975, count - 1))
    assert expanded(10**6) == pytest.approx(0.95, abs=1e-5)


def test_a_bca_interval_leans_to_the_longer_tail() -> None:
    found = bca_mean(np.random.default_rng(1).exponential(size=40), seed=0)
    assert found.high - found.mean > 1.2 * (found.mean - found.low)
    assert bca_mean([2.0, 2.0, 2.0], seed=0) == bca_mean([2.0], seed=0)
    assert bca_mean([2.0, 1.0], seed=0) == Interval(1.5, 1.0, 2.0)


@pytest.mark.parametrize("count", [5, 10])
def test_few_signs_are_all_tried(count: int) -> None:
    gaps = np.random.default_rng(count).normal(0.5, 1.0, count)
    signs = np.array(list(itertools.product([-1, 1], repeat=count)))
    sums = (signs * np.abs(gaps)).sum(axis=1)
    exact = (np.abs(sums) >= abs(gaps.sum()) - 1e-12).mean()
    assert sign_flip_test(gaps, seed=0) == sign_flip_test(gaps, seed=1) == pytest.approx(exact)


def test_many_signs_are_drawn_from_the_seed() -> None:
    gaps = AFTER - BEFORE
    assert sign_flip_test(gaps, seed=0) == sign_flip_test(gaps, seed=0)
    assert sign_flip_test(gaps + 10, seed=0) == pytest.approx(2 / (RESAMPLES + 1))  # never zero


def test_effect_sizes_of_known_data() -> None:
    gaps = np.array([1.0, 2.0, 3.0, -0.5, 4.0, 0.0])
    found = effect_size(gaps, np.zeros(6))
    assert found.d == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert found.g == pytest.approx(found.d * (1 - 3 / (4 * 5 - 1)), rel=2e-3)  # Hedges' own approximation
    assert found.rank_biserial == pytest.approx((14 - 1) / 15)  # ranks 1 to 5, the least of them against
    assert stats.wilcoxon(gaps).statistic == 1


def test_the_correction_of_hedges_makes_an_effect_unbiased() -> None:
    gaps = np.random.default_rng(0).normal(0.5, 1.0, size=(40_000, 8))
    d = gaps.mean(axis=1) / gaps.std(axis=1, ddof=1)
    assert d.mean() == pytest.approx(0.5 / hedges_correction(7), abs=0.01)
    assert (d * hedges_correction(7)).mean() == pytest.approx(0.5, abs=0.01)


def test_benjamini_hochberg_agrees_with_scipy_and_holm_is_stricter() -> None:
    p_values = [0.001, 0.008, 0.039, 0.041, 0.2]
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))
    assert all(b <= h for b, h in zip(benjamini_hochberg(p_values), holm(p_values), strict=True))
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1.0], [2.0], "at least two"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "as many of both, not 2 and 3"),
        ([1.0, np.nan], [1.0, 2.0], "not finite"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "non-empty list"),
    ],
)
def test_invalid_pairs_of_samples_are_refused(a: list, b: list, said: str) -> None:
    for function in (paired_difference, effect_size, differences):
        with pytest.raises(ValueError, match=said):
            function(a, b)


def test_an_effect_without_spread_has_no_size() -> None:
    with pytest.raises(ValueError, match="without spread"):
        effect_size([1.0, 2.0], [1.0, 2.0])

"""Power and equivalence against statsmodels."""

import math

import numpy as np
import pytest

from plaudit.statistics import detectable_effect, equivalence_test, power_of, prompts_needed

sm_power = pytest.importorskip("statsmodels.stats.power", reason="statsmodels is not installed; it is in the dev extra")
weightstats = pytest.importorskip("statsmodels.stats.weightstats")


@pytest.mark.parametrize("effect", [0.05, 0.2, 0.5, -0.8, 1.5])
def test_power_and_prompts_needed_agree_with_statsmodels(effect: float) -> None:
    reference = sm_power.TTestPower()
    for prompts in (2, 10, 100):
        expected = reference.power(abs(effect), prompts, 0.05, alternative="two-sided")
        expected = 1.0 if np.isnan(expected) else expected  # far in the tail it has no value
        assert power_of(effect, prompts) == pytest.approx(expected, abs=1e-9)
    expected = reference.solve_power(abs(effect), power=0.8, alpha=0.05, alternative="two-sided")
    assert prompts_needed(effect) == math.ceil(expected)


def test_the_least_number_of_prompts_is_enough_and_one_fewer_is_not() -> None:
    needed = prompts_needed(0.3)
    assert needed is not None
    assert power_of(0.3, needed) >= 0.8 > power_of(0.3, needed - 1)
    assert prompts_needed(0.0) is None and prompts_needed(1e-4) is None
    assert prompts_needed(1e6) == 2
    with pytest.raises(ValueError, match="no power"):
        prompts_needed(math.inf)
    with pytest.raises(ValueError, match="at least two"):
        power_of(0.3, 1)


def test_the_detectable_effect_is_the_other_way_round() -> None:
    assert power_of(detectable_effect(40), 40) == pytest.approx(0.8)
    assert detectable_effect(40) == pytest.approx(
        sm_power.TTestPower().solve_power(nobs=40, power=0.8, alpha=0.05, alternative="two-sided"), abs=1e-6
    )


@pytest.mark.parametrize(("shift", "margin"), [(0.0, 0.3), (0.2, 0.3), (-0.4, 0.3), (0.1, 1.0)])
def test_equivalence_agrees_with_statsmodels(shift: float, margin: float) -> None:
    gaps = np.random.default_rng(2).normal(shift, 1.0, 60)
    expected = weightstats.DescrStatsW(gaps).ttost_mean(-margin, margin)[0]
    found = equivalence_test(gaps.mean(), gaps.std(ddof=1) / np.sqrt(60), 59, margin)
    assert found.p == pytest.approx(expected, abs=1e-12)


def test_equivalence_is_an_interval_within_the_margin() -> None:
    from scipy import stats

    reach = stats.t.ppf(0.95, 39) * 0.1  # half of the 90 % interval
    assert equivalence_test(0.05, 0.1, 39, 0.05 + reach).p == pytest.approx(0.05)


def test_a_margin_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        equivalence_test(0.0, 1.0, 10, 0.0)
    with pytest.raises(ValueError, match="without spread"):
        equivalence_test(0.0, 0.0, 10, 1.0)

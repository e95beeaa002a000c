import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plaudit.evaluate.distances import frechet_distance
from plaudit.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_replicates,
    bootstrap_statistic,
    centred_interval,
    holm,
    paired_difference,
    spearman,
    win_rate,
)


def test_the_interval_of_a_mean_has_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        interval = bootstrap_mean(rng.normal(1.5, 2.0, size=60), seed=trial, n=400)
        covered += interval.low <= 1.5 <= interval.high
    assert 0.90 <= covered / 400 <= 0.98


def test_the_interval_of_a_mean_has_the_theoretical_width() -> None:
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_mean(values, seed=0)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_the_interval_of_a_ratio_over_clusters() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(300):
        counts = rng.integers(1, 20, size=12)
        shares = rng.beta(6, 4, size=12)
        interval = bootstrap_ratio(rng.binomial(counts, shares), counts, seed=repeat)
        covered += interval.low <= 0.6 <= interval.high
    assert 0.9 < covered / 300 < 0.99
    equal = bootstrap_ratio([2.0, 4.0, 1.0], [4, 8, 2], seed=0)
    assert (equal.mean, equal.low, equal.high) == (0.5, 0.5, 0.5)
    one = bootstrap_ratio([-1.0], [4], seed=0, bounds=(-1.0, 1.0))
    assert (one.mean, one.low, one.high) == (-0.25, -1, 1)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_the_interval_of_a_biased_statistic_holds_its_estimate() -> None:
    """Resampled clips repeat, so that few of them lie farther from any reference than the clips themselves."""
    rng = np.random.default_rng(3)
    clips, reference = rng.normal(size=(24, 40)), rng.normal(size=(200, 40))

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(clips[rows], reference)

    plain = bootstrap_statistic(distance, 24, seed=0, resamples=100)
    centred = bootstrap_statistic(distance, 24, seed=0, resamples=100, interval=centred_interval)
    assert plain.mean == centred.mean == pytest.approx(frechet_distance(clips, reference))
    assert plain.low > plain.mean
    assert centred.low < centred.mean < centred.high


def test_replicates_of_two_statistics_resample_the_same_clips() -> None:
    seen: list[list[np.ndarray]] = [[], []]
    for rows in seen:
        bootstrap_replicates(lambda indices, rows=rows: rows.append(indices) or 0.0, 10, seed=5, resamples=8)
    np.testing.assert_array_equal(seen[0], seen[1])


def test_pairing_finds_what_unpaired_noise_hides() -> None:
    rng = np.random.default_rng(4)
    prompts = rng.normal(0.0, 5.0, size=50)
    before, after = prompts + rng.normal(0, 0.1, 50), prompts + 0.2 + rng.normal(0, 0.1, 50)
    result = paired_difference(after, before)
    assert result.difference.excludes_zero and result.difference.low > 0.1
    assert result.p_t < 1e-6 and result.p_wilcoxon < 1e-6
    assert paired_difference(before, after).difference.mean == pytest.approx(-result.difference.mean)


def test_a_paired_t_test_of_known_data() -> None:
    # t = mean / (s / sqrt(n)) = 3 / (1.5811 / 2.2361) = 4.2426 with 4 degrees of freedom.
    result = paired_difference([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    assert result.p_t == pytest.approx(0.013236, abs=1e-5)
    assert result.p_wilcoxon == pytest.approx(2 / 2**5)  # the most extreme of 32 sign patterns, both sides


def test_equal_systems_do_not_differ_and_a_constant_difference_has_no_test() -> None:
    same = paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (same.p_t, same.p_wilcoxon, same.p_permutation, same.difference.mean) == (1.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="all 2 differences are 1; without spread there is nothing to test"):
        paired_difference([2.0, 3.0], [1.0, 2.0])


def test_p_values_of_no_difference_are_uniform() -> None:
    rng = np.random.default_rng(5)
    found = [paired_difference(rng.normal(size=20), rng.normal(size=20)).p_t < 0.05 for _ in range(300)]
    assert 0.02 <= np.mean(found) <= 0.09


def test_holm_on_known_data() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_never_lowers_p_values_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1.0 for p, c in zip(p_values, corrected, strict=True))
    assert corrected[int(np.argmin(p_values))] == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_a_tie_is_half_a_win() -> None:
    rate = win_rate([2.0, 1.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0])
    assert rate.mean == 0.625
    assert 0.0 <= rate.low <= rate.mean <= rate.high
    assert win_rate([1.0, 2.0], [1.0, 2.0]).mean == 0.5


def test_spearman_follows_order_alone() -> None:
    assert spearman([0, 1, 2, 3], [0.1, 0.2, 10.0, 1000.0]) == pytest.approx(1.0)
    assert spearman([0, 1, 2, 3], [3, 2, 1, 0]) == pytest.approx(-1.0)
    ties, others = [0.0, 2.0, 2.0, 1.0, 5.0], [3.0, 3.0, 1.0, 4.0, 2.0]
    assert spearman(ties, others) == pytest.approx(stats.spearmanr(ties, others).statistic, abs=1e-12)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    assert spearman([0, 1, 2], [7, 7, 7]) == 0.0


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0, 2.0]]])
def test_invalid_samples_are_refused(bad: list) -> None:
    with pytest.raises(ValueError):
        bootstrap_mean(bad, seed=0)
    with pytest.raises(ValueError):
        paired_difference([1.0], [2.0])

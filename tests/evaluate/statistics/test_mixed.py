"""The closed form of the mixed model against statsmodels' REML, which finds it by searching."""

import warnings

import numpy as np
import pytest
from scipy import stats

from plaudit.statistics import mixed_difference


def table(seed: int, prompts: int, seeds: int, prompt: float, lucky: float, mean: float = 0.3) -> np.ndarray:
    """Differences [P, K] with effects of prompts and of seeds, of the given standard deviations."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, prompt, (prompts, 1)) + rng.normal(0, lucky, (1, seeds))
    return mean + effects + rng.normal(0, 1.0, (prompts, seeds))


def reml(gaps: np.ndarray, shared: bool) -> tuple[float, float, dict[str, float], float]:
    """statsmodels: mean, its standard error, variances, and the variance of the rest."""
    api = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is not installed; it is in the dev extra")
    pandas = pytest.importorskip("pandas")
    prompts, seeds = gaps.shape
    prompt, seed = np.repeat(np.arange(prompts), seeds), np.tile(np.arange(seeds), prompts)
    rows = pandas.DataFrame({"gap": gaps.ravel(), "prompt": prompt, "seed": seed})
    formulas = {"prompt": "0 + C(prompt)"} | ({"seed": "0 + C(seed)"} if shared else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = api.mixedlm("gap ~ 1", rows, groups=np.ones(len(rows)), vc_formula=formulas)
        fit = model.fit(reml=True, method=["lbfgs", "powell"])
    names = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    return fit.fe_params["Intercept"], fit.bse["Intercept"], names, fit.scale


@pytest.mark.parametrize(
    ("seed", "shared", "prompt", "lucky"),
    [(0, True, 1.0, 0.8), (1, True, 0.5, 1.0), (2, False, 1.0, 0.0), (3, True, 1.0, 0.0), (4, True, 0.0, 0.7)],
)
def test_the_closed_form_is_reml(seed: int, shared: bool, prompt: float, lucky: float) -> None:
    gaps = table(seed, 12, 4, prompt, lucky)
    mean, error, variances, rest = reml(gaps, shared)
    found = mixed_difference(gaps, shared)
    assert found.difference.mean == pytest.approx(mean, abs=1e-6)
    assert found.error == pytest.approx(error, rel=2e-3)
    assert found.rest == pytest.approx(rest, rel=5e-3)
    assert found.prompt == pytest.approx(variances["prompt"], rel=2e-2, abs=5e-3)
    if shared:
        assert found.seed == pytest.approx(variances["seed"], rel=2e-2, abs=5e-3)
    else:
        assert found.seed is None


def test_seeds_nested_in_prompts_reduce_to_a_t_test_over_prompts() -> None:
    gaps = table(5, 20, 3, 1.0, 0.0)
    found = mixed_difference(gaps, shared_seeds=False)
    expected = stats.ttest_1samp(gaps.mean(axis=1), 0.0)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(interval), abs=1e-12)


def test_a_lucky_seed_widens_the_interval() -> None:
    gaps = table(6, 30, 3, 0.5, 1.0)
    crossed, nested = mixed_difference(gaps, True), mixed_difference(gaps, False)
    assert crossed.difference.high > nested.difference.high and crossed.p > nested.p
    assert crossed.freedom < 5  # three seeds say little about other seeds


def test_the_false_positive_rate_is_nominal() -> None:
    p_values = [mixed_difference(table(seed, 20, 5, 0.7, 0.5, mean=0.0), True).p for seed in range(600)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        (np.zeros((1, 3)), "at least two prompts and two seeds"),
        (np.zeros((3, 1)), "at least two prompts and two seeds"),
        (np.full((3, 3), 2.0), "all 9 differences are 2"),
        (np.full((3, 3), np.nan), "not finite"),
    ],
)
def test_invalid_tables_are_refused(gaps: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mixed_difference(gaps, True)

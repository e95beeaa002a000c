"""Over-optimization: known divergences are detected, and noise is not."""

from itertools import combinations

import numpy as np
import pytest

from plaudit.evaluate.comparison import Difference
from plaudit.evaluate.overoptimization import (
    Regression,
    best_of_n,
    find_divergence,
    rank_weights,
    regression_sentence,
    regressions_under_reward,
    reward_among,
)
from plaudit.evaluate.pages.text import divergence_sentence
from plaudit.statistics import Interval

POINTS, PROMPTS = 8, 60


def series(peak: int | None, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Reward that rises all along, and a metric that falls after `peak`; None: it rises too. [S, B] each."""
    rng = np.random.default_rng(seed)
    place = np.arange(POINTS)[:, None]
    prompts = rng.normal(size=(1, PROMPTS))
    mean = 0.1 * place if peak is None else -0.15 * np.abs(place - peak)
    reward = 0.2 * place + prompts + noise * rng.normal(size=(POINTS, PROMPTS))
    return reward, mean + prompts + noise * rng.normal(size=(POINTS, PROMPTS))


@pytest.mark.parametrize("peak", [0, 2, 5])
def test_a_known_divergence_is_detected_with_its_interval(peak: int) -> None:
    divergence = find_divergence("clap", *series(peak))
    assert divergence is not None and divergence.established
    assert (divergence.place, divergence.end) == (peak, POINTS - 1)
    assert divergence.low <= peak <= divergence.high <= peak + 1
    assert divergence.share > 0.99 and divergence.rise.low > 0 and divergence.loss.low > 0
    assert divergence.loss.mean == pytest.approx(0.15 * (POINTS - 1 - peak), abs=0.15)


def test_a_metric_that_rises_too_does_not_diverge() -> None:
    assert find_divergence("clap", *series(None, noise=0.01)) is None
    reward, _ = series(2)
    assert find_divergence("clap", -reward, -reward) is None  # the reward falls from its first point on


def test_a_distance_diverges_where_it_rises() -> None:
    reward, other = series(3)
    up, down = find_divergence("frechet", reward, -other), find_divergence("clap", reward, other)
    assert up is not None and down is not None
    assert (up.place, up.loss) == (down.place, down.loss)


def test_noise_is_rarely_a_divergence() -> None:
    """The other metric does not move: choosing its best point by the data must not establish a loss."""
    established = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        reward = 0.2 * np.arange(6)[:, None] + rng.normal(size=(6, 30))
        divergence = find_divergence("clap", reward, rng.normal(size=(6, 30)))
        established += divergence is not None and divergence.established
    assert established / 200 <= 0.05


def test_an_uncertain_divergence_has_a_wide_interval() -> None:
    sure, unsure = (
        find_divergence("clap", *series(2, noise=0.05)),
        find_divergence("clap", *series(2, noise=2.0, seed=3)),
    )
    assert sure is not None and (sure.low, sure.high) == (2, 2)
    assert unsure is None or unsure.high - unsure.low > 2


@pytest.mark.parametrize("bad", [np.zeros((3, 4)), np.zeros((2, 5)), np.full((2, 4), np.nan)])
def test_invalid_series_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="series"):
        find_divergence("clap", np.zeros((2, 4)), bad)


def change(metric: str, mean: float, established: bool = True) -> Difference:
    interval = Interval(mean, mean - 0.1, mean + 0.1)
    return Difference(metric, "a", "b", 9, 1, 0.0, mean, interval, "paired t", p_holm=0.01 if established else 0.3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([change("reward", 0.5), change("clap", -0.5), change("utility", -0.5)], ["clap", "utility"]),
        ([change("reward", 0.5), change("clap", -0.5, False)], []),
        ([change("reward", 0.5, False), change("clap", -0.5)], []),
        ([change("reward", -0.5), change("clap", -0.5)], []),
        ([change("reward", 0.5), change("frechet", 0.5), change("clap", 0.5)], ["frechet"]),
        ([change("reward", 0.5), change("frechet", -0.5)], []),
        ([change("clap", -0.5)], []),
    ],
)
def test_a_flag_is_reward_up_and_another_worse(changes: list[Difference], expected: list[str]) -> None:
    assert regressions_under_reward(changes) == expected


def test_regressions_and_divergences_are_summarized_in_a_sentence() -> None:
    assert regression_sentence([]).startswith("No stage raised reward")
    assert regression_sentence(
        [Regression("SFT", ["CLAP score", "true utility"]), Regression("CRPO", ["CLAP score"])]
    ) == (
        "Over-optimization: SFT raised reward while CLAP score, true utility got worse; "
        "CRPO raised reward while CLAP score got worse."
    )
    labels = [f"step {n}" for n in range(POINTS)]
    sentence = divergence_sentence(find_divergence("clap", *series(2)), labels, "CLAP score")
    assert "from step 2 on (95 % interval: step 2" in sentence and "not significant" not in sentence
    assert "do not diverge" in divergence_sentence(None, labels, "CLAP score")


def test_the_reward_metric_is_identified_by_name() -> None:
    assert reward_among(["clap", "tunejury_reward"]) == "tunejury_reward"
    assert reward_among(["a_reward", "reward"]) == "reward" and reward_among(["clap"]) is None


def test_the_best_of_n_is_the_mean_over_all_draws() -> None:
    rng = np.random.default_rng(0)
    chooser, values = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    found = best_of_n(chooser, values, [1, 2, 4, 6])
    for row, n in enumerate((1, 2, 4, 6)):
        for prompt in range(3):
            draws = [values[prompt, max(draw, key=lambda i: chooser[prompt, i])] for draw in combinations(range(6), n)]
            assert found[row, prompt] == pytest.approx(np.mean(draws))
    assert rank_weights(6, 3).sum() == pytest.approx(1)


def test_selection_by_an_error_diverges_from_the_truth() -> None:
    """A reward whose highest scores are its errors: utility rises with N at first, then falls."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(200, 64))
    fooled = rng.random((200, 64)) < 0.03
    reward = truth + 5.0 * fooled
    truth = truth - 3.0 * fooled
    counts = [1, 2, 4, 8, 16, 32, 64]
    divergence = find_divergence("utility", best_of_n(reward, reward, counts), best_of_n(reward, truth, counts))
    assert divergence is not None and divergence.established and 0 < divergence.place < 5 and divergence.end == 6

"""Which pair to ask next: against brute force, and in simulation against random pairing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from benchmarks.active_pairing import accuracies, compare, main, ratio_of_votes
from plaudit.studio.listening.active import (
    RANKING_PRIOR_SD,
    choose_pair,
    most_informative,
    ranking_information,
    reward_information,
)
from plaudit.studio.listening.statistics import Answer, fit_bradley_terry


def posterior(seed: int = 0, systems: int = 4):  # type: ignore[no-untyped-def]
    """After a few random votes."""
    wins = np.random.default_rng(seed).integers(0, 5, (systems, systems)).astype(float)
    np.fill_diagonal(wins, 0)
    return fit_bradley_terry(wins, np.zeros_like(wins), prior_sd=RANKING_PRIOR_SD)


def test_information_is_the_expected_decrease_of_the_uncertainty_of_all_orders() -> None:
    """The same by conditioning a normal distribution on the answer, written out for one pair at a time."""
    found = posterior()
    mean, covariance = found.strengths, found.covariance

    def uncertainty(m: np.ndarray, c: np.ndarray) -> float:
        total = 0.0
        for i in range(4):
            for j in range(i + 1, 4):
                p = norm.cdf((m[i] - m[j]) / math.sqrt(c[i, i] + c[j, j] - 2 * c[i, j]))
                total += p * (1 - p)
        return total

    pairs = [(0, 1), (2, 3), (3, 1)]
    expected = []
    for i, j in pairs:
        x = np.zeros(4)
        x[i], x[j] = 1, -1
        p = expit(x @ mean)
        win = expit(x @ mean / math.sqrt(1 + math.pi / 8 * (x @ covariance @ x)))
        later = np.linalg.pinv(np.linalg.pinv(covariance) + p * (1 - p) * np.outer(x, x))
        after = sum(q * uncertainty(mean + later @ x * (y - p), later) for y, q in ((1, win), (0, 1 - win)))
        expected.append(uncertainty(mean, covariance) - after)
    np.testing.assert_allclose(ranking_information(found, pairs), expected, atol=1e-9)


def test_information_is_symmetric_and_of_several_posteriors_at_once() -> None:
    wins = np.random.default_rng(1).integers(0, 5, (3, 5, 5)).astype(float) * (1 - np.eye(5))
    together = fit_bradley_terry(wins, np.zeros_like(wins), prior_sd=1.0)
    pairs = np.stack(np.triu_indices(5, 1), axis=1)
    information = ranking_information(together, pairs)
    np.testing.assert_allclose(information, ranking_information(together, pairs[:, ::-1]), atol=1e-12)
    for row, one in zip(information, wins, strict=True):
        alone = fit_bradley_terry(one, np.zeros((5, 5)), prior_sd=1.0)
        np.testing.assert_allclose(row, ranking_information(alone, pairs), atol=1e-7)


def votes(a: str, b: str, first: int, second: int) -> list[Answer]:
    """`first` answers for a, then `second` for b."""
    return [
        Answer(f"l{k}", "p", "p", f"{a}/p", f"{b}/p", a, b, "a" if k < first else "b") for k in range(first + second)
    ]


def test_neighbours_are_asked_before_systems_whose_order_is_known() -> None:
    answers = [*votes("best", "x", 30, 2), *votes("best", "y", 30, 2), *votes("x", "y", 4, 4)]
    candidates = [("best", "x"), ("y", "best"), ("x", "y"), ("y", "x")]
    chosen = {
        choose_pair(answers, ["best", "x", "y"], candidates, np.random.default_rng(seed), exploration=0)
        for seed in range(12)
    }
    assert chosen == {2, 3}  # either side first, at random


def test_a_system_without_votes_comes_first() -> None:
    answers = [*votes("u", "v", 5, 5), *votes("v", "w", 5, 5), *votes("u", "w", 5, 5)]
    candidates = [("u", "v"), ("v", "w"), ("new", "w")]
    assert choose_pair(answers, ["u", "v", "w", "new"], candidates, np.random.default_rng(0), exploration=0) == 2


def test_some_pairs_are_random_and_none_is_an_error() -> None:
    answers = [*votes("best", "x", 30, 2), *votes("x", "y", 4, 4)]
    random = np.random.default_rng(0)
    chosen = [choose_pair(answers, ["best", "x", "y"], [("best", "x"), ("x", "y")], random, 0.5) for _ in range(60)]
    assert 5 <= chosen.count(0) <= 25
    with pytest.raises(ValueError, match="no pair left"):
        choose_pair(answers, ["best", "x", "y"], [], random)


def test_an_ensemble_is_asked_where_its_members_disagree() -> None:
    margins = [[3.0, 0.0, 3.0], [-3.0, 0.0, 3.0]]
    information = reward_information(margins)
    assert information[0] == pytest.approx(math.log(2) + sum(p * math.log(p) for p in (expit(3), expit(-3))))
    assert information[1:] == pytest.approx([0, 0], abs=1e-12)
    assert most_informative(margins, 2).tolist()[0] == 0
    with pytest.raises(ValueError, match="at least two members"):
        reward_information([[1.0]])


def test_a_ratio_of_votes_by_hand() -> None:
    random = np.array([0.5, 0.6, 0.7, 0.8])
    assert ratio_of_votes(random, random, 3) == 1.0
    assert ratio_of_votes(random, np.array([0.7, 0.9, 0.9, 0.9]), 3) == pytest.approx(1.5 / 4)
    assert ratio_of_votes(random, random - 0.1, 3) == math.inf


def test_active_pairing_is_ahead_of_random_pairing_in_a_small_simulation() -> None:
    random, active = (
        np.mean([accuracies(seed, 20, 6, 80, way, 20, 1.5) for seed in range(2)], axis=0) for way in (False, True)
    )
    assert active[-1] > random[-1]


@pytest.mark.slow
def test_active_pairing_needs_at_most_seven_tenths_of_the_votes() -> None:
    assert compare(systems=8, votes=300, seeds=20)["ratios"][-1]["ratio"] <= 0.7


def test_the_benchmark_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(systems=3, votes=40, seeds=2, tests=2, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert [row["votes"] for row in figures["ratios"]] == [20, 40] and len(figures["accuracy"]["active"]) == 4

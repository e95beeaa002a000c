"""Which pair to ask next: against brute force, and in simulation against random pairing."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm

from benchmarks.active_pairing import SimulatedTest, compare, main, ratio_of_votes, table_of, vote
from plaudit.reward.bradley_terry import fit_bradley_terry
from plaudit.studio.listening.active import (
    RANKING_PRIOR_SD,
    choose_comparison,
    most_informative,
    ranking_information,
    ranking_posterior,
    reward_information,
)
from plaudit.studio.listening.design import Exposure
from plaudit.studio.listening.statistics.answers import Answer
from plaudit.studio.listening.statistics.decisions import decide


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


PLACES = {"best": 0, "x": 1, "y": 2, "new": 3}


def counts(*votes: tuple[str, str, int, int]) -> np.ndarray:
    """Wins, ties and pending of four systems after (first, second, wins of the first, wins of the second)."""
    tallies = np.zeros((3, 4, 4))
    for a, b, first, second in votes:
        i, j = PLACES[a], PLACES[b]
        tallies[0, i, j] += first
        tallies[0, j, i] += second
    return tallies


def choices(tallies: np.ndarray, candidates: list[tuple[str, str]], seeds: int = 12) -> set[int]:
    """What is chosen with several seeds, without exploration."""
    places = [[PLACES[a], PLACES[b]] for a, b in candidates]
    wins, ties, pending = tallies
    return {
        choose_comparison(wins, ties, pending, places, np.random.default_rng(seed), exploration=0)
        for seed in range(seeds)
    }


def test_neighbours_are_asked_before_systems_whose_order_is_known() -> None:
    tallies = counts(("best", "x", 30, 2), ("best", "y", 30, 2), ("x", "y", 4, 4))
    candidates = [("best", "x"), ("y", "best"), ("x", "y"), ("y", "x")]
    assert choices(tallies[:, :3, :3], candidates) == {2, 3}  # either side first, at random


def test_a_system_without_votes_comes_first() -> None:
    tallies = counts(("best", "x", 5, 5), ("x", "y", 5, 5), ("best", "y", 5, 5))
    assert choices(tallies, [("best", "x"), ("x", "y"), ("new", "y")]) == {2}


def test_a_question_that_is_out_is_not_asked_again_while_others_tell_as_much() -> None:
    tallies = np.zeros((3, 4, 4))
    candidates = [("best", "x"), ("y", "new"), ("x", "y")]
    assert choices(tallies, candidates) == {0, 1, 2}
    tallies[2, 1, 0] = 1  # in either direction
    assert choices(tallies, candidates) == {1}


def test_the_uncertainty_after_pending_questions_is_that_of_their_answers() -> None:
    """By the precision matrix, for a posterior whose strengths are even: then answers on both sides leave them so."""
    wins = 6 * (1 - np.eye(4))
    pending = np.zeros((4, 4))
    pending[0, 1] = pending[3, 2] = 2
    before, expected = ranking_posterior(wins, 0 * wins), ranking_posterior(wins, 0 * wins, pending)
    answered = wins.copy()
    answered[[0, 1, 3, 2], [1, 0, 2, 3]] += 1
    np.testing.assert_allclose(expected.covariance, ranking_posterior(answered, 0 * wins).covariance, atol=1e-9)
    np.testing.assert_array_equal(expected.strengths, before.strengths)


def test_some_pairs_are_random_and_none_is_an_error() -> None:
    wins, ties, pending = counts(("best", "x", 30, 2), ("x", "y", 4, 4))[:, :3, :3]
    random = np.random.default_rng(0)
    chosen = [choose_comparison(wins, ties, pending, [[0, 1], [1, 2]], random, 0.5) for _ in range(60)]
    assert 5 <= chosen.count(0) <= 25
    with pytest.raises(ValueError, match="no pair left"):
        choose_comparison(wins, ties, pending, [], random)


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


@settings(max_examples=15, deadline=None)
@given(
    systems=st.integers(2, 5), per_listener=st.integers(1, 12), at_once=st.integers(1, 6), seed=st.integers(0, 10**6)
)
def test_pairs_of_simulated_tests(systems: int, per_listener: int, at_once: int, seed: int) -> None:
    """Whatever is chosen: nobody gets a pair twice, tallies are of what was asked, and sides are balanced."""
    random = np.random.default_rng(seed)
    test = SimulatedTest(table_of(systems, prompts=3), systems, True, random, per_listener, at_once)
    strengths = random.standard_normal(systems)
    for number in range(25):
        test.answer(vote(strengths, test.ask().pair, random))
        wins, ties, pending = test.tallies
        assert wins.sum() + ties.sum() / 2 == number + 1
        assert pending.min() >= 0
        assert at_once - 1 <= pending.sum() <= at_once
    for plan, got in zip(test.plans, test.given, strict=True):
        assert len(plan) == min(per_listener, 3 * systems * (systems - 1) // 2)
        pairs = [got[position].pair for position in sorted(got)]
        assert len({pair.id for pair in pairs}) == len(pairs)
    shown = Exposure.of([one for got in test.given for one in got.values()])
    assert all(abs(shown.left[pair] - shown.right[pair]) <= 1 for pair in shown.pairs)


def test_listeners_at_once_are_asked_about_different_systems() -> None:
    test = SimulatedTest(table_of(6), 6, True, np.random.default_rng(0), at_once=3)
    test.ask()
    asked = [got[0].pair.systems for got in test.given]
    assert len({system for pair in asked for system in pair}) == 6, asked


def test_systems_that_are_hard_to_tell_apart_are_asked_about_most() -> None:
    strengths = np.array([3.0, 0.1, 0.0, -3.0])
    asked: dict[bool, Counter[tuple[str, str]]] = {}
    for active in (False, True):
        random = np.random.default_rng(0)
        test = SimulatedTest(table_of(4), 4, active, random)
        pairs = []
        for _ in range(72):
            pairs.append(test.ask().pair)
            test.answer(vote(strengths, pairs[-1], random))
        asked[active] = Counter(pair.systems for pair in pairs)
    assert 9 <= asked[False]["1", "2"] <= 15
    assert asked[True].most_common(1)[0][0] == ("1", "2")
    assert asked[True]["1", "2"] >= 24
    assert asked[True]["0", "3"] <= 6


@pytest.mark.slow
def test_active_pairing_needs_at_most_seven_tenths_of_the_votes() -> None:
    assert compare(systems=8, votes=300, seeds=20)["ratios"][-1]["ratio"] <= 0.7


def test_the_benchmark_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(systems=3, votes=40, seeds=2, tests=2, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert [row["votes"] for row in figures["ratios"]] == [20, 40] and len(figures["accuracy"]["active"]) == 4


@pytest.mark.slow
def test_decisions_of_active_tests_are_wrong_as_seldom_as_they_say() -> None:
    """With systems that are even and listeners of different tastes, looked at every 20 votes."""
    wrong, tests = 0, 120
    for seed in range(tests):
        random = np.random.default_rng([7, seed])
        test = SimulatedTest(table_of(4), 4, True, random)
        tastes = random.normal(0, 0.7, (40, 4)) + np.array([1.0, 0.0, 0.0, 0.0])
        answers: list[Answer] = []
        decided = False
        for number in range(1, 301):
            pair, listener = test.ask().pair, test.turn
            winner = vote(tastes[listener], pair, random)
            answers.append(
                Answer(str(listener), pair.id, pair.prompt, pair.a, pair.b, pair.system_a, pair.system_b, winner)  # type: ignore[arg-type]
            )
            test.answer(winner)
            if number % 20 == 0:
                verdicts = {(one.first, one.second): one.verdict for one in decide(answers)}
                even = [verdict for pair, verdict in verdicts.items() if "0" not in pair]
                best = [verdict for (first, _), verdict in verdicts.items() if first == "0"]
                decided |= "second" in best or bool({"first", "second"} & set(even))
        wrong += decided
    assert wrong <= 0.05 * tests + 2 * math.sqrt(0.05 * 0.95 * tests), wrong

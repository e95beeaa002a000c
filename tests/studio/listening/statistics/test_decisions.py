"""Decisions while votes come in keep their rate of false positives, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from plaudit.studio.listening.statistics.confidence import boundary, confidence_sequence
from plaudit.studio.listening.statistics.decisions import decide
from tests.studio.listening.statistics.simulated import simulated


def test_the_boundary_is_valid_at_all_times_for_normal_steps() -> None:
    """Sums of 2,000 independent normal steps leave it at most 5 % of the time, and a fixed test's 1.96 far more."""
    steps = np.random.default_rng(1).standard_normal((2000, 2000))
    times = np.arange(1, 2001)
    z = np.abs(np.cumsum(steps, 1)) / np.sqrt(times)
    bound = np.array([boundary(t) for t in times])
    assert 0.01 < (z > bound).any(1).mean() <= 0.05 and (z > 1.96).any(1).mean() > 0.4


@pytest.mark.parametrize(
    ("listeners", "each", "spread", "together"),
    [(1, 120, 0.0, True), (4, 30, 0.5, True), (10, 12, 0.6, True), (10, 12, 0.6, False), (60, 2, 0.5, True)],
)
def test_looking_after_every_vote_keeps_the_rate_of_false_positives(
    listeners: int, each: int, spread: float, together: bool
) -> None:
    """No difference on average, listeners with tastes of their own, a look after each of 120 votes.

    A look at one listener's votes is about that listener, who may well have a preference.
    """
    wrong = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        tastes = expit(spread * random.standard_normal(listeners))
        order = np.repeat(np.arange(listeners), each)
        if together:
            random.shuffle(order)
        scored: list[tuple[str, float]] = []
        for listener in order:
            value = 0.5 if random.random() < 0.1 else float(random.random() < tastes[listener])
            scored.append((str(listener), value))
            interval = confidence_sequence(scored)
            heard = len({name for name, _ in scored})
            if (heard > 1 or listeners == 1) and (interval.low > 0.5 or interval.high < 0.5):
                wrong += 1
                break
    assert wrong <= 5  # more than 5 of 40 at a rate of 5 % has a probability of 1 %


def test_a_clear_difference_is_decided_and_a_small_one_is_equivalent() -> None:
    clear = decide(simulated({"u": 0.8, "v": -0.8}, 25, 10))[0]
    assert clear.verdict == "first" and clear.needed == 0 and clear.rate.low > 0.5
    turned = decide(simulated({"u": -0.8, "v": 0.8}, 25, 10), [("v", "u"), ("u", "v")])
    assert [d.verdict for d in turned] == ["first", "second"]
    assert decide(simulated({"u": 0.0, "v": 0.0}, 60, 40), margin=0.1)[0].verdict == "equivalent"
    assert decide([], [("u", "v")])[0].verdict == "open" and decide([], [("u", "v")])[0].needed is None


def test_several_questions_share_the_rate_of_false_positives() -> None:
    answers = simulated({"u": 0.5, "v": 0.0, "w": -0.5}, 12, 20)
    alone, together = decide(answers, [("u", "v")])[0], decide(answers)[0]
    assert together.rate.low < alone.rate.low and together.rate.mean == alone.rate.mean


@pytest.mark.parametrize(("margin", "power"), [(0.0, 0.8), (0.5, 0.8), (0.1, 1.0)])
def test_a_question_that_is_none_is_refused(margin: float, power: float) -> None:
    with pytest.raises(ValueError, match=r"margin|power"):
        decide([], margin=margin, power=power)

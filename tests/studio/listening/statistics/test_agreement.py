"""Agreement against published examples, by hand, and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.reward.leaderboard import bradley_terry
from plaudit.studio.listening.statistics.agreement import krippendorff_alpha, listener_agreement, repeat_agreement
from plaudit.studio.listening.statistics.answers import counted
from tests.studio.listening.statistics.simulated import answer, simulated

KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, math.nan, math.nan, math.nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, math.nan, 3],
        [math.nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, math.nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, math.nan],
    ]
)


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(metric: str, alpha: float) -> None:
    """Example C of "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units, gaps."""
    found = krippendorff_alpha(KRIPPENDORFF, metric)  # type: ignore[arg-type]
    assert found == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_krippendorffs_binary_example() -> None:
    """Example A of the same: two observers, ten units."""
    values = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert krippendorff_alpha(values) == pytest.approx(0.095, abs=5e-4)


def test_alpha_knows_perfect_agreement_and_nothing() -> None:
    assert krippendorff_alpha([[0, 1, 1], [0, 1, 1]]) == 1.0
    assert krippendorff_alpha([[0, math.nan], [math.nan, 1]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    with pytest.raises(ValueError, match="coders by units"):
        krippendorff_alpha([1.0, 2.0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_agreement_is_the_same_whichever_side_a_clip_was_on(seed: int) -> None:
    random = np.random.default_rng(seed)
    answers = simulated({"u": 1.0, "v": 0.0, "w": -1.0}, 4, 12, seed % 1000, tie=0.4)
    other = {"a": "b", "b": "a"}
    turned = [
        replace(x, a=x.b, b=x.a, system_a=x.system_b, system_b=x.system_a, winner=other.get(x.winner, x.winner))
        if random.random() < 0.5 else x
        for x in answers
    ]  # fmt: skip
    one, two = listener_agreement(answers), listener_agreement(turned)
    assert one == two
    for x, y in zip(bradley_terry(answers, resamples=20).strengths, bradley_terry(turned, resamples=20).strengths,
                    strict=True):  # fmt: skip
        assert x.system == y.system and x.strength.mean == pytest.approx(y.strength.mean, abs=1e-7)


def test_agreement_by_hand() -> None:
    """Three listeners: one pair 2 against 1 (a third of the listener pairs agree), one unanimous, one alone."""
    answers = [answer("u", "v", w, f"l{k}", "p") for k, w in enumerate("aab")]
    answers += [answer("u", "v", "b", f"l{k}", "q") for k in range(3)] + [answer("u", "v", "a", "l0", "r")]
    found = listener_agreement(answers)
    assert found.pairs == 2 and found.agreeing is not None
    assert found.agreeing.mean == pytest.approx((1 / 3 + 1) / 2)
    assert listener_agreement([]).alpha is None


def test_unanimous_listeners_have_alpha_one_and_coins_have_none() -> None:
    same = [answer("u", "v", "ab"[p % 2], f"l{k}", f"p{p}") for p in range(20) for k in range(3)]
    assert listener_agreement(same).alpha == 1.0
    random = np.random.default_rng(2)
    coins = [answer("u", "v", random.choice(["a", "b"]), f"l{k}", f"p{p}") for p in range(400) for k in range(3)]
    found = listener_agreement(coins)
    assert found.alpha == pytest.approx(0, abs=0.08) and found.agreeing is not None
    assert found.agreeing.low < 0.5 < found.agreeing.high


def test_repeats_are_the_same_two_clips_again() -> None:
    first = answer("u", "v", "a", "l0")
    same = replace(first, id="again", kind="repeat", a=first.b, b=first.a, system_a="v", system_b="u", winner="b")
    other = replace(first, id="again", kind="repeat", listener="l1", winner="tie")
    counts, rate = repeat_agreement([first, same, replace(first, listener="l1"), other])
    assert counts == {"l0": (1, 1), "l1": (0, 1)} and rate is not None and rate.mean == 0.5
    assert counted([first, same]) == [first]
    assert repeat_agreement([first]) == ({}, None)

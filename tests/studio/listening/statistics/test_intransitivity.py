"""Circular triads against Kendall's formula."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.studio.listening.statistics.intransitivity import intransitivity
from tests.studio.listening.statistics.simulated import answer


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 8))
def test_circular_triads_are_as_many_as_kendall_counts(seed: int, items: int) -> None:
    """n (n - 1) (2 n - 1) / 12 - sum of squared wins / 2 (Kendall and Babington Smith, 1940)."""
    random = np.random.default_rng(seed)
    answers, wins = [], np.zeros(items)
    for i, j in combinations(range(items), 2):
        better = random.integers(2)
        wins[j if better else i] += 1
        answers.append(answer(f"s{i}", f"s{j}", "b" if better else "a"))
    found = intransitivity(answers)
    assert found.circular == items * (items - 1) * (2 * items - 1) / 12 - (wins**2).sum() / 2
    assert found.triads == math.comb(items, 3) == found.system_triads
    beats = {(x.system_a, x.system_b) if x.winner == "a" else (x.system_b, x.system_a) for x in answers}
    assert all({(a, b), (b, c), (c, a)} <= beats for a, b, c in found.cycles)


def test_triads_with_ties_or_of_several_listeners_are_none() -> None:
    answers = [answer("u", "v", "a"), answer("v", "w", "a", "other"), answer("u", "w", "tie")]
    assert intransitivity(answers).triads == 0 and intransitivity(answers).rate is None

"""The number of votes still needed, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.studio.listening.statistics.confidence import confidence_sequence
from plaudit.studio.listening.statistics.votes_needed import votes_needed


@pytest.mark.parametrize("rate", [0.6, 0.7])
def test_the_votes_still_needed_decide_it_as_often_as_the_power_says(rate: float) -> None:
    """From a first look, so many more votes at the rate then seen: decided in about 80 % of repetitions."""
    start = [(str(k), float(k % 20 < 20 * rate)) for k in range(40)]
    needed = votes_needed(start, margin=0.05, power=0.8)
    assert needed is not None
    decided = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        more = [(f"m{k}", float(random.random() < rate)) for k in range(needed)]
        interval = confidence_sequence([*start, *more])
        decided += interval.low > 0.5
    assert 26 <= decided <= 40


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60), st.floats(0.55, 0.9))
def test_a_larger_difference_needs_fewer_votes(count: int, rate: float) -> None:
    def scored(share: float) -> list[tuple[str, float]]:
        return [(str(k), float(k < share * count)) for k in range(count)]

    small, large = (votes_needed(scored(s), 0.02, 0.8) for s in (rate, 1.0))
    assert large is not None and (small is None or large <= small)
    stricter = votes_needed(scored(rate), 0.02, 0.95)
    assert small is None or stricter is None or stricter >= small

"""Win rates by hand."""

from __future__ import annotations

import pytest

from plaudit.studio.listening.statistics.win_rates import win_rates
from tests.studio.listening.statistics.simulated import answer


def test_win_rates_count_ties_half() -> None:
    answers = [answer("u", "v", w, f"l{k}") for k, w in enumerate(["a", "a", "tie", "b", "both_bad"])]
    answers.append(answer("v", "u", "b", "l9"))
    (record,) = win_rates(answers)
    assert (record.first, record.wins, record.losses, record.ties, record.both_bad) == ("u", 3, 1, 1, 1)
    assert record.rate is not None and record.rate.mean == pytest.approx(3.5 / 5)
    assert 0 <= record.rate.low < 0.7 < record.rate.high <= 1

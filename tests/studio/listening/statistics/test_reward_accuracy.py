"""A reward against the votes, by hand."""

from __future__ import annotations

import pytest

from plaudit.studio.listening.statistics.reward_accuracy import reward_accuracy
from tests.studio.listening.statistics.simulated import answer


def test_a_rewards_accuracy_by_hand() -> None:
    answers = [answer("u", "v", w, f"l{k}") for k, w in enumerate(["a", "b", "tie", "a"])]
    score = {"u/p": 2.0, "v/p": 1.0}.get
    found = reward_accuracy(answers, score)
    assert found.votes == 3 and found.accuracy is not None and found.accuracy.mean == pytest.approx(2 / 3)
    assert reward_accuracy(answers, lambda clip: None).votes == 0

"""Time and attention of listeners, and exclusions, by hand."""

from __future__ import annotations

import pytest

from plaudit.studio.listening.rules import ExclusionRules
from plaudit.studio.listening.statistics.attention import exclusions, listener_figures
from plaudit.studio.listening.statistics.summary import summarize
from tests.studio.listening.statistics.simulated import answer


def test_time_and_attention_of_a_listener() -> None:
    answers = [
        answer("u", "v", "a", prompt="1", response_ms=1000, listened_a=1.0, listened_b=2.0),
        answer("u", "v", "b", prompt="2", response_ms=3000, listened_a=3.0, listened_b=4.0, swapped=True),
        answer("u", "v", "tie", prompt="3", response_ms=5000),
        answer("u", "v", "a", prompt="4", kind="obvious", expected="a"),
        answer("u", "v", "b", prompt="5", kind="obvious", expected="a"),
        answer("u", "v", "b", prompt="6", kind="practice"),
    ]
    (figures,) = listener_figures(answers)
    assert (figures.answers, figures.ties, figures.seconds, figures.listened) == (5, 1, 3.0, 5.0)
    assert figures.obvious == (1, 2) and figures.left == 0.75


def test_rules_exclude_with_a_reason() -> None:
    careless = [
        answer("u", "v", "a", "careless", f"p{k}", response_ms=500, listened_a=0.2, listened_b=0.2) for k in range(30)
    ]
    careless += [answer("u", "v", "a", "careless", "o", kind="obvious", expected="b")]
    careful = [
        answer("u", "v", "ab"[k % 2], "careful", f"p{k}", response_ms=9000, listened_a=5, listened_b=5)
        for k in range(30)
    ]
    figures = listener_figures([*careless, *careful])
    assert exclusions(figures, ExclusionRules()) == {}
    rules = ExclusionRules(min_obvious=0.7, min_seconds=2, min_listened=3, max_one_side=0.9, min_answers=5)
    out = exclusions(figures, rules)
    assert list(out) == ["careless"]
    assert out["careless"] == [
        "0 of 1 obvious pairs right, below 70%",
        "median 0.5 s to an answer, below 2 s",
        "median 0.4 s heard of a pair, below 3 s",
        "chose the left side 100% of the time, above 90%",
    ]
    found = summarize([*careless, *careful], rules, resamples=20)
    assert found.counted == 30 and found.answers == 61 and list(found.excluded) == ["careless"]
    assert found.board.votes == 30


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="min_votes"):
        ExclusionRules.model_validate({"min_votes": 3})

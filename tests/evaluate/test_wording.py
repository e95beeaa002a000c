from dataclasses import replace

import pytest

from plaudit.evaluate.comparison import Difference
from plaudit.evaluate.pages.report import Results, StageRow
from plaudit.evaluate.pages.text import (
    duration,
    in_sentence,
    number,
    overall_finding,
    percent,
    reward_hacking_finding,
    signed,
    stage_findings,
)
from plaudit.statistics import Interval

ANY = Interval(0.0, -0.1, 0.1)


def row(title: str, changes: list[Difference]) -> StageRow:
    means = dict.fromkeys(("reward", "clap", "frechet", "utility"), ANY)
    return StageRow(title.lower(), title, "", 64, means, ANY, None, Interval(0.8, 0.7, 0.9), changes)


def results(*changes: Difference) -> Results:
    stages = [row("SFT", []), row("Expert iteration", list(changes))]
    return Results(stages=stages, overall=[], sweeps=[], wins_by="utility", tests=3, reward=None)


def change(metric: str, interval: Interval, p_holm: float | None = None) -> Difference:
    return Difference(metric, "a", "b", 24, 1, 0.0, interval.mean, interval, "paired t", p_holm=p_holm)


RAISED = change("reward", Interval(0.12, 0.05, 0.19), 0.004)
UNSURE = change("clap", Interval(-0.01, -0.04, 0.02), 0.5)
UNCORRECTED = change("clap", Interval(0.02, 0.001, 0.04), 0.09)
CLOSER = change("frechet", Interval(-0.2, -0.3, -0.1))
FELL = change("utility", Interval(-0.3, -0.5, -0.1), 0.01)
ROSE = change("utility", Interval(0.3, 0.1, 0.5), 0.01)


def position(text: str, *parts: str) -> list[int]:
    """Where the parts stand in a text; each must be in it."""
    return [text.index(part) for part in parts]


def test_findings_have_the_size_of_each_significant_change_and_the_others_apart() -> None:
    ((title, text),) = stage_findings(results(RAISED, UNSURE, CLOSER))
    assert title == "Expert iteration"
    order = position(text, "raised", "0.120 [0.050, 0.190]", "lowered", "0.200 [0.100, 0.300]", ". ")
    assert order == sorted(order)
    minus = "\N{MINUS SIGN}"
    assert text.index(f"{minus}0.010 [{minus}0.040, 0.020]") > order[-1]


def test_an_interval_above_zero_is_not_significant_where_the_corrected_test_is_not() -> None:
    ((_, text),) = stage_findings(results(UNCORRECTED))
    assert "raised" not in text and "+0.020 [0.001, 0.040]" in text and "p = 0.090" in text


@pytest.mark.parametrize(("utility", "hacked"), [(FELL, True), (ROSE, False)])
def test_reward_hacking_is_reward_up_and_true_utility_down(utility: Difference, hacked: bool) -> None:
    text = reward_hacking_finding(results(RAISED, utility))
    assert ("exploited" in text) == hacked and ("No stage" in text) != hacked


def test_the_overall_change_is_that_from_the_first_to_the_last_stage() -> None:
    overall = replace(results(RAISED), overall=[change("reward", Interval(0.5, 0.4, 0.6))])
    order = position(overall_finding(overall), "SFT", "Expert iteration", "0.500 [0.400, 0.600]", "80 % [70 %, 90 %]")
    assert order == sorted(order)
    assert overall_finding(results(RAISED)) == ""


def test_numbers_are_formatted_for_readers() -> None:
    assert number(-0.5, 2) == "\N{MINUS SIGN}0.50" and number(-0.0001) == "0.000"
    assert signed(0.25, 2) == "+0.25" and signed(0.0) == "0.000"
    assert percent(0.625, 1) == "62.5 %"
    assert [duration(s) for s in (48, 840, 7500)] == ["48 s", "14 min", "2 h 05 min"]
    names = {"utility": "true utility", "clap": "CLAP score", "frechet": "Fréchet distance"}
    assert {metric: in_sentence(metric) for metric in names} == names

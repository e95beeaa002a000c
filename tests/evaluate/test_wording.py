from dataclasses import replace

import pytest

from plaudit.evaluate.pages.report import Change, Results, StageRow
from plaudit.evaluate.pages.text import (
    duration,
    exploitation_finding,
    number,
    overall_finding,
    percent,
    signed,
    stage_findings,
)
from plaudit.statistics import Interval

ANY = Interval(0.0, -0.1, 0.1)


def row(title: str, changes: list[Change]) -> StageRow:
    return StageRow(
        key=title.lower(), title=title, note="", clips=64, reward=ANY, clap=ANY, frechet=ANY, utility=ANY,
        agreement=ANY, wins_previous=None, wins_baseline=Interval(0.8, 0.7, 0.9), changes=changes,
    )  # fmt: skip


def results(*changes: Change) -> Results:
    stages = [row("SFT", []), row("Expert iteration", list(changes))]
    return Results(stages=stages, overall=[], sweeps=[], wins_by="utility", tests=3, reward=None)


RAISED = Change("reward", Interval(0.12, 0.05, 0.19), 0.001, 0.001, 0.004)
UNSURE = Change("clap", Interval(-0.01, -0.04, 0.02), 0.5, 0.5, 0.5)
UNCORRECTED = Change("clap", Interval(0.02, 0.001, 0.04), 0.03, 0.03, 0.09)
CLOSER = Change("frechet", Interval(-0.2, -0.3, -0.1))
FELL = Change("utility", Interval(-0.3, -0.5, -0.1), 0.002, 0.002, 0.01)
ROSE = Change("utility", Interval(0.3, 0.1, 0.5), 0.002, 0.002, 0.01)


def test_findings_say_what_changed_by_how_much_and_what_is_open() -> None:
    (title, sentences), = stage_findings(results(RAISED, UNSURE, CLOSER), "true utility")
    assert title == "Expert iteration"
    assert sentences == (
        "raised mean reward by 0.120 [0.050, 0.190] and lowered Fréchet distance by 0.200 [0.100, 0.300]. "
        "No change in CLAP score (-0.010 [-0.040, 0.020]) can be told from chance: the interval includes zero."
    ).replace("-", "\N{MINUS SIGN}")


def test_an_interval_above_zero_is_no_finding_where_the_corrected_test_says_otherwise() -> None:
    (_, sentences), = stage_findings(results(UNCORRECTED), "true utility")
    assert sentences == (
        "made no established difference. A change in CLAP score of +0.020 [0.001, 0.040] does not survive the "
        "correction for many tests (p = 0.090)."
    )


@pytest.mark.parametrize(("truth", "exploited"), [(FELL, True), (ROSE, False)])
def test_exploitation_is_reward_up_and_truth_down(truth: Change, exploited: bool) -> None:
    sentence = exploitation_finding(results(RAISED, truth), "true utility")
    assert ("at Expert iteration: there the reward was exploited" in sentence) == exploited
    assert ("No stage raised reward while lowering" in sentence) != exploited


def test_the_whole_chain_is_summed_up() -> None:
    whole = replace(results(RAISED), overall=[Change("reward", Interval(0.5, 0.4, 0.6))])
    assert overall_finding(whole, "true utility") == (
        "From SFT to Expert iteration, the chain raised mean reward by 0.500 [0.400, 0.600]. "
        "Expert iteration wins 80 % [70 %, 90 %] of prompts against SFT, by true utility."
    )
    assert overall_finding(results(RAISED), "true utility") == ""


def test_numbers_are_written_as_people_write_them() -> None:
    assert number(-0.5, 2) == "\N{MINUS SIGN}0.50" and number(-0.0001) == "0.000"
    assert signed(0.25, 2) == "+0.25" and signed(0.0) == "0.000"
    assert percent(0.625, 1) == "62.5 %"
    assert [duration(s) for s in (48, 840, 7500)] == ["48 s", "14 min", "2 h 05 min"]

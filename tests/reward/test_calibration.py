"""Anchor calibration: planted biases, what the fit must satisfy, bad input, and the published figures."""

from __future__ import annotations

import json
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from plaudit.cli.main import app
from plaudit.errors import ModelError, VoteError
from plaudit.evaluate.calibration import calibration_gains, in_order, read_order
from plaudit.reward.calibration import (
    UNCALIBRATED,
    fit_calibration,
    gradient,
    load_calibration,
    save_calibration,
)
from plaudit.reward.checks import doubts
from plaudit.reward.scored_votes import ScoredVote, read_scored_votes

PUBLISHED_VOTES = Path(os.environ.get("PLAUDIT_VOTES_DIR", Path(__file__).parents[2] / "../shared/votes"))
PLANTED = {"old": 0.0, "loved": 1.2, "hated": -0.8, "fair": 0.1}


def planted(count: int, seed: int = 0, biases: dict[str, float] = PLANTED) -> list[ScoredVote]:
    """Votes by true quality; the scores add each system's bias to it."""
    rng = np.random.default_rng(seed)
    votes = []
    for number in range(count):
        a, b = rng.choice(sorted(biases), 2, replace=False)
        quality = rng.normal(size=2)
        won = rng.random() < 1 / (1 + math.exp(quality[1] - quality[0]))
        scores = float(quality[0] + biases[a]), float(quality[1] + biases[b])
        votes.append(ScoredVote(f"v{number}", str(a), str(b), *scores, "a" if won else "b"))
    return votes


def test_planted_biases_are_found_within_three_standard_errors() -> None:
    found = fit_calibration(planted(4000), "old")
    for system, bias in PLANTED.items():
        assert abs(found.biases[system].value - bias) <= 3 * found.biases[system].standard_error
    assert found.biases["old"].value == 0.0 and found.biases["loved"].standard_error < 0.1
    assert found.temperature == pytest.approx(1.0, abs=0.1)


def test_standard_errors_are_the_spread_of_fits_to_other_votes() -> None:
    fits = [fit_calibration(planted(300, seed), "old").biases["loved"] for seed in range(60)]
    spread = np.std([bias.value for bias in fits])
    assert spread == pytest.approx(np.mean([bias.standard_error for bias in fits]), rel=0.3)


def test_a_system_against_one_other_has_the_bias_of_the_textbook() -> None:
    """Scores equal and the penalty gone: the bias is the log odds of the wins."""
    votes = [ScoredVote(str(n), "new", "old", 0.0, 0.0, "a" if n < 30 else "b") for n in range(40)]
    found = fit_calibration(votes, "old", penalty=1e-9)
    assert found.biases["new"].value == pytest.approx(-math.log(30 / 10), abs=1e-6)
    assert found.biases["new"].standard_error == pytest.approx(math.sqrt(1 / 30 + 1 / 10), abs=1e-6)


def test_a_huge_penalty_leaves_the_scores_alone() -> None:
    assert all(abs(bias.value) < 1e-5 for bias in fit_calibration(planted(200), "old", penalty=1e8).biases.values())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from([0.01, 1.0, 30.0]))
def test_the_slope_is_zero_at_the_fit_and_order_changes_nothing(seed: int, count: int, penalty: float) -> None:
    votes = planted(count, seed)
    pinned = votes[0].system_a
    found = fit_calibration(votes, pinned, penalty)
    assert all(abs(slope) < 1e-8 for slope in gradient(found, votes).values())
    shuffled = random.Random(seed).sample(votes, len(votes))
    assert fit_calibration(shuffled, pinned, penalty) == found


def test_swapping_the_sides_of_a_vote_changes_nothing() -> None:
    votes = planted(100)
    other = {"a": "b", "b": "a"}
    swapped = [ScoredVote(v.id, v.system_b, v.system_a, v.score_b, v.score_a, other[v.winner]) for v in votes]  # type: ignore[arg-type]
    one, two = fit_calibration(votes, "old"), fit_calibration(swapped, "old")
    assert [b.value for b in one.biases.values()] == pytest.approx([b.value for b in two.biases.values()], abs=1e-9)


def test_ties_are_left_out() -> None:
    votes = planted(100)
    ties = [replace(vote, id=f"tie {vote.id}", winner="tie") for vote in planted(50, seed=1)]
    assert fit_calibration(votes + ties, "old") == fit_calibration(votes, "old")
    with pytest.raises(VoteError, match="none of 50 votes is decided"):
        fit_calibration(ties, "old")


def test_what_is_unknown_is_said_and_left_alone() -> None:
    found = fit_calibration(planted(300), "old")
    assert found.apply(0.5, "brand-new") == 0.5 and found.apply(0.5, "loved") == 0.5 - found.biases["loved"].value
    assert found.unknown(["loved", "newer", "brand-new", "newer"]) == ["brand-new", "newer"]
    assert UNCALIBRATED.apply(0.5, "loved") == 0.5 and UNCALIBRATED.unknown(["loved"]) == ["loved"]


def test_doubts_are_told_and_the_fit_is_made_all_the_same() -> None:
    one_sided = [replace(vote, winner="a") for vote in planted(3)]
    one_sided.append(ScoredVote("own", "loved", "loved", 0.1, 0.2, "a"))
    said = " ".join(doubts([*one_sided, ScoredVote("x", "p", "q", 0.0, 0.0, "a")]))
    assert "every decided vote is for a" in said and "1 votes compare a system with itself" in said
    assert "too few to tell them apart" in said
    assert all(math.isfinite(b.value) for b in fit_calibration(one_sided, None).biases.values())
    assert doubts(planted(100)) == []


def test_a_pinned_system_that_no_vote_shows_is_refused() -> None:
    with pytest.raises(VoteError, match="no decided vote shows 'nobody'; pin one of fair, hated, loved, old"):
        fit_calibration(planted(50), "nobody")
    with pytest.raises(VoteError, match="penalty"):
        fit_calibration(planted(50), "old", penalty=0.0)


def test_a_calibration_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    found = fit_calibration(planted(50), "old")
    save_calibration(found, tmp_path / "calibration.json")
    assert load_calibration(tmp_path / "calibration.json") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "anch', "not valid JSON"),
        ('{"kind": "tunejury"}', "of kind 'tunejury'"),
        ("[]", "not a calibration"),
        ('{"kind": "anchor-calibration", "biases": {"x": {"value": "NaN"}}}', "not a calibration"),
        (
            '{"kind": "anchor-calibration", "biases": {}, "temperature": NaN, "penalty": 1, "pinned": null}',
            "nan is not finite",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        load_calibration(tmp_path / "calibration.json")


CSV = "battle_id,preference,system_a,system_b,tj_a,tj_b\n"


def test_scored_votes_are_read_by_either_name_of_a_column(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(CSV + "u1,A,x,y,0.5,-1\nu2,BOTH_BAD,x,y,1,2\n")
    (tmp_path / "two.csv").write_text("winner,system_a,system_b,score_a,score_b\nb,x,y,0.5,-1\n")
    expected = [ScoredVote("u1", "x", "y", 0.5, -1.0, "a"), ScoredVote("u2", "x", "y", 1.0, 2.0, "tie")]
    assert read_scored_votes(tmp_path / "one.csv") == expected
    assert read_scored_votes(tmp_path / "two.csv") == [ScoredVote("2", "x", "y", 0.5, -1.0, "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV + "u1,A,x,y,0.5,nan\n", "line 2: column 'tj_b' must be a number, not 'nan'"),
        (CSV + "u1,A,x,y,0.5,high\n", "line 2: column 'tj_b' must be a number, not 'high'"),
        (CSV + "u1,C,x,y,0.5,1\n", "line 2: column 'preference' must be one of a.*not 'C'"),
        (CSV + "u1,A,x,y,0.5\n", "line 2: column 'tj_b' is empty"),
        (CSV.replace("tj_b", "tj"), "has no column score_b or tj_b; it has battle_id"),
        (CSV, "holds no votes"),
        ("", "has no column winner or preference; it has none"),
    ],
)
def test_bad_scored_votes_are_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "votes.csv").write_text(text)
    with pytest.raises(VoteError, match=message):
        read_scored_votes(tmp_path / "votes.csv")


def test_the_protocol_finds_a_planted_gain_and_none_where_there_is_none() -> None:
    biased = {"old": 0.0, "loved": 3.0, "hated": -3.0}
    none, some = calibration_gains(planted(400, 0, biased), [0, 150], 200, range(3), "old")
    assert none.gain is None and none.p is None and not none.significant
    assert some.gain is not None and some.gain.excludes_zero and some.significant
    assert some.accuracy.mean > none.accuracy.mean + 0.05
    fair = {"old": 0.0, "other": 0.0}
    (gain,) = calibration_gains(planted(400, 0, fair), [30], 200, range(3), "old")
    assert not gain.significant


def test_too_few_votes_for_the_protocol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VoteError, match="10 ordered votes do not give 6 to fit"):
        calibration_gains(planted(10), [0], 6, range(5), "old")
    with pytest.raises(VoteError, match="between 0 and 5"):
        calibration_gains(planted(10), [6], 5, range(5), "old")
    (tmp_path / "order.json").write_text('{"new_uuids": ["a", "a"]}')
    with pytest.raises(VoteError, match="names an id twice"):
        read_order(tmp_path / "order.json")
    (tmp_path / "order.json").write_text("[]")
    with pytest.raises(VoteError, match="no list of ids"):
        read_order(tmp_path / "order.json")


def published() -> list[ScoredVote]:
    scored = PUBLISHED_VOTES / "music_arena_postcutoff_scored.csv"
    if not scored.is_file():
        pytest.skip(f"no scored votes in {PUBLISHED_VOTES}; set PLAUDIT_VOTES_DIR")
    return in_order(read_scored_votes(scored), read_order(PUBLISHED_VOTES / "music_arena_postcutoff_order.json"))


PUBLISHED = {0: 55.1, 3: 56.6, 10: 57.6, 30: 57.7, 100: 60.1, 250: 61.2}


def accuracies(votes: list[ScoredVote], pinned: str | None) -> dict[int, float]:
    """Per cent of held-out votes by the number of votes calibrated on, mean of five splits."""
    gains = calibration_gains(votes, list(PUBLISHED), 299, range(5), pinned)
    return {gain.votes: 100 * gain.accuracy.mean for gain in gains}


def test_the_published_accuracies_come_out() -> None:
    votes = published()
    assert len(votes) == 598
    held = accuracies(votes, "sonauto-v2-2")
    assert round(held[0], 1) == PUBLISHED[0]
    assert all(abs(held[count] - accuracy) <= 1.0 for count, accuracy in PUBLISHED.items()), held
    free = accuracies(votes, None)
    assert {count: round(accuracy, 1) for count, accuracy in free.items()} == PUBLISHED


def test_the_command_writes_a_calibration_and_measures_it(tmp_path: Path) -> None:
    votes = planted(60)
    rows = "".join(f"{v.id},{v.winner.upper()},{v.system_a},{v.system_b},{v.score_a},{v.score_b}\n" for v in votes)
    (tmp_path / "votes.csv").write_text(CSV + rows)
    (tmp_path / "order.json").write_text(json.dumps({"new_uuids": [v.id for v in votes] + ["elsewhere"]}))
    files = [str(tmp_path / "votes.csv"), "--order", str(tmp_path / "order.json"), "--test", "30", "--k", "0,10"]
    out = tmp_path / "calibration.json"
    done = CliRunner().invoke(app, ["reward", "calibrate", *files, "--pin", "old", "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["fitted"] == 60 and [gain["votes"] for gain in said["gains"]] == [0, 10]
    assert load_calibration(out) == fit_calibration(votes, "old")
    shown = CliRunner().invoke(app, ["reward", "calibrate", *files, "--pin", "old", "--votes", "2"])
    assert shown.exit_code == 0 and "too few to tell them apart" in shown.stderr and "Holm" in shown.stdout

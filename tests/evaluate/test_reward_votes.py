"""A reward on votes: every figure of a table small enough to be worked out by hand."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import VoteError
from plaudit.evaluate.rewards import evaluate_votes, save_evaluation
from plaudit.reward.scored_votes import ScoredVote, read_scored_votes, score_votes, write_scored_votes
from plaudit.reward.training import fit_reward
from tests.reward.taste import FAST, store, votes

REAL = Path(os.environ.get("PLAUDIT_VOTES_DIR", Path(__file__).parents[2] / "../shared/votes"))

TABLE = [
    ScoredVote("x", "y", "one", 2.0, 1.0, 1.0),  # right
    ScoredVote("y", "x", "one", 1.0, 3.0, 1.0),  # wrong
    ScoredVote("x", "z", "two", 2.0, 0.0, 1.0),  # right
    ScoredVote("z", "y", "two", 0.0, 1.0, 0.5),  # tie
    ScoredVote("x", "x", "two", 9.0, 0.0, 1.0),  # right, within one system
]


def test_a_table_by_hand() -> None:
    found = evaluate_votes(TABLE)
    assert (found.overall.votes, found.overall.decided, found.overall.accuracy) == (5, 4, 0.75)
    assert {g.name: (g.votes, g.decided, g.accuracy.mean) for g in found.sources if g.accuracy} == {
        "one": (2, 2, 0.5), "two": (3, 2, 1.0),
    }  # fmt: skip
    pairs = {g.name: (g.votes, g.decided, g.accuracy and g.accuracy.mean) for g in found.pairs}
    assert pairs == {"x - y": (2, 2, 0.5), "x - z": (1, 1, 1.0), "y - z": (1, 0, None)}
    assert found.same_system == 1
    systems = {s.name: (s.votes, s.reward.mean, s.win_rate.mean) for s in found.systems}
    assert systems["x"] == (3, pytest.approx(7 / 3), pytest.approx(2 / 3))
    assert systems["y"] == (3, pytest.approx(1.0), pytest.approx(0.5))
    assert systems["z"] == (2, 0.0, 0.25)
    assert found.spearman is not None and found.spearman.mean == pytest.approx(1.0)
    assert found.margins.mean == pytest.approx((1 - 2 + 2 - 1 + 9) / 5) and found.margins.absolute_mean == 3.0
    assert found.margins.quartiles == (1.0, 2.0, 2.0)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(-3, 3), st.sampled_from([0.0, 0.5, 1.0]))))
def test_exchanging_the_sides_of_every_vote_changes_nothing(rows: list[tuple[int, int, float, float]]) -> None:
    made = [ScoredVote(f"s{a}", f"s{b}", "", margin, 0.25, target) for a, b, margin, target in rows]
    turned = [ScoredVote(v.system_b, v.system_a, "", v.score_b, v.score_a, 1 - v.target) for v in made]
    if all(vote.target == 0.5 for vote in made):
        with pytest.raises(VoteError, match="are ties"):
            evaluate_votes(made)
        return
    one, other = evaluate_votes(made), evaluate_votes(turned)
    assert one.overall.accuracy == other.overall.accuracy and one.pairs == other.pairs
    assert one.overall.calibration_error == pytest.approx(other.overall.calibration_error)
    assert {s.name: round(s.win_rate.mean, 9) for s in one.systems} == {
        s.name: round(s.win_rate.mean, 9) for s in other.systems
    }


def test_votes_of_unknown_systems_count_in_no_system_figure() -> None:
    unknown = [ScoredVote("", "", "two", 1.0, 0.0, 1.0), ScoredVote("x", "", "two", 1.0, 0.0, 1.0)]
    found = evaluate_votes([*TABLE, *unknown])
    assert found.overall.votes == len(TABLE) + 2 and found.same_system == 1
    assert found.pairs == evaluate_votes(TABLE).pairs and found.systems == evaluate_votes(TABLE).systems
    alone = evaluate_votes([ScoredVote("", "", "", 1.0, 0.0, 1.0)])
    assert (alone.pairs, alone.systems, alone.same_system) == ([], [], 0)


def test_scored_votes_round_trip(tmp_path: Path) -> None:
    write_scored_votes(tmp_path / "scores.csv", TABLE)
    assert read_scored_votes(tmp_path / "scores.csv") == TABLE


GOOD = "system_a,system_b,preference,tj_a,tj_b\nx,y,A,1,2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("preference", "chosen"), "no column winner or preference"),
        (GOOD + "x,y,both,1,2\n", "line 3: column 'preference' must be one of a, .* not 'both'"),
        (GOOD + "x,y,B,,2\n", "line 3: column 'tj_a' must be a number"),
        (GOOD + "x,y,B,1,inf\n", "line 3: column 'tj_b' must be a number"),
        (GOOD.splitlines()[0] + "\n", "holds no votes"),
        ("", "is empty"),
    ],
)
def test_a_bad_table_is_named_by_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(VoteError, match=said):
        read_scored_votes(tmp_path / "scores.csv")


def test_scores_of_votes_have_the_metrics_of_the_fit(tmp_path: Path) -> None:
    features, test = store(tmp_path), votes(200, 2)
    fitted = fit_reward(votes(300, 0), votes(100, 1), test, features, replace(FAST, blocks=("audio", "clap_text")))
    found = evaluate_votes(score_votes(test, fitted.reward, features))
    assert found.overall.accuracy == fitted.metrics.accuracy
    assert found.overall.calibration_error == pytest.approx(fitted.metrics.calibration_error, abs=1e-6)


def test_the_folder_has_the_figures_and_the_diagram_for_light_and_dark(tmp_path: Path) -> None:
    save_evaluation(evaluate_votes(TABLE), tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["overall"]["accuracy"] == 0.75
    light, dark = (tmp_path / name for name in ("reliability.svg", "reliability-dark.svg"))
    assert "#ffffff" in light.read_text() and "#ffffff" not in dark.read_text() and "#171c24" in dark.read_text()
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not (REAL / "music_arena_postcutoff_scored.csv").exists(), reason=f"no votes in {REAL}")
def test_real_scored_votes_agree_with_their_column() -> None:
    path = REAL / "music_arena_postcutoff_scored.csv"
    found = evaluate_votes(read_scored_votes(path))
    agree = [line.split(",")[-1] == "True" for line in path.read_text().splitlines()[1:]]
    assert found.overall.votes == len(agree) == 799
    assert found.overall.accuracy == pytest.approx(sum(agree) / len(agree))

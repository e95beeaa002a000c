"""Strengths with intervals by simulation, and against a published board."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from plaudit.reward.leaderboard import bradley_terry
from plaudit.reward.scored_votes import read_scored_votes
from plaudit.studio.listening.statistics.answers import Answer
from plaudit.studio.listening.statistics.win_rates import win_rates
from tests.studio.listening.statistics.simulated import answer, simulated

VOTES = Path(os.environ.get("PLAUDIT_VOTES_DIR", Path(__file__).parents[2] / "../shared/votes"))


def test_both_bad_is_counted_and_left_out() -> None:
    answers = simulated({"u": 0.5, "v": 0.0, "w": 0.0}, 5, 20)
    bad = [replace(x, winner="both_bad", prompt="q", a=x.a + "q", b=x.b + "q") for x in answers[:30]]
    alone, mixed = bradley_terry(answers), bradley_terry([*answers, *bad])
    assert alone.strengths == mixed.strengths and (alone.both_bad, mixed.both_bad) == (0, 30)
    assert [(r.wins, r.losses, r.rate) for r in win_rates(answers)] == [
        (r.wins, r.losses, r.rate) for r in win_rates([*answers, *bad])
    ]


def test_systems_never_compared_are_named_apart() -> None:
    answers = [answer("u", "v", "a", f"l{k}") for k in range(3)] + [answer("x", "y", "b", f"l{k}") for k in range(3)]
    board = bradley_terry(answers, systems=["z"])
    assert board.groups == [["u", "v"], ["x", "y"], ["z"]]
    assert {s.system: s.votes for s in board.strengths} == {"u": 3, "v": 3, "x": 3, "y": 3, "z": 0}
    assert bradley_terry([]).strengths == []


def test_intervals_over_listeners_cover_where_those_over_votes_do_not() -> None:
    covered = {"listeners": 0, "votes": 0}
    for seed in range(40):
        answers = simulated({"u": 0.5, "v": -0.5}, 8, 20, seed, spread=0.6)
        clustered = bradley_terry(answers, seed=seed, resamples=100)
        apart = [replace(x, listener=str(k)) for k, x in enumerate(answers)]
        for name, board in (("listeners", clustered), ("votes", bradley_terry(apart, seed=seed, resamples=100))):
            interval = next(s.strength for s in board.strengths if s.system == "u")
            covered[name] += interval.low <= 0.45 <= interval.high  # averaging tastes shrinks 0.5 to about 0.45
    assert covered["listeners"] >= 35 and covered["votes"] < covered["listeners"]


def test_ranks_follow_what_the_intervals_leave_open() -> None:
    board = bradley_terry(simulated({"best": 2.5, "x": 0.0, "y": 0.0, "worst": -2.5}, 20, 40, seed=5))
    ranks = {s.system: s.ranks for s in board.strengths}
    assert ranks["best"] == (1, 1) and ranks["worst"] == (4, 4) and ranks["x"] == ranks["y"] == (2, 3)
    assert [s.rank for s in board.strengths] == [1, 2, 3, 4]


@pytest.mark.skipif(not (VOTES / "music_arena_postcutoff_scored.csv").exists(), reason=f"no votes in {VOTES}")
def test_the_board_is_that_of_music_arenas_formula(tmp_path: Path) -> None:
    """Logistic regression with an L2 penalty of 1, ties as halves, 400 / ln 10, around 1000; both bad left out."""
    path = VOTES / "music_arena_postcutoff_scored.csv"
    rows = path.read_text().splitlines()
    bad = [line.replace(",A,", ",BOTH_BAD,", 1).replace(",B,", ",BOTH_BAD,", 1) for line in rows[1:200]]
    (tmp_path / "with-both-bad.csv").write_text("\n".join([*rows, *bad]) + "\n")
    boards = []
    for table in (path, tmp_path / "with-both-bad.csv"):
        votes = read_scored_votes(table, "battle_id")
        answers = [
            Answer(f"listener {k}", v.id, v.id, f"{v.id}/a", f"{v.id}/b", v.system_a, v.system_b, v.winner)  # type: ignore[arg-type]
            for k, v in enumerate(votes)
        ]
        boards.append(bradley_terry(answers, tie_model="half", prior_sd=1.0, resamples=100))
    assert boards[0] == boards[1] and boards[0].votes == 799

    names = sorted({s.system for s in boards[0].strengths})
    design = np.array([[(x.system_a == n) - (x.system_b == n) for n in names] for x in answers], dtype=float)
    won = np.array([x.winner == "a" for x in answers])

    def loss(theta: np.ndarray) -> float:
        return float(np.logaddexp(0, -np.where(won, 1, -1) * (design @ theta)).sum() + (theta**2).sum() / 2)

    theta = minimize(loss, np.zeros(len(names)), method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8}).x
    expected = dict(zip(names, 1000 + 400 / math.log(10) * (theta - theta.mean()), strict=True))
    assert {s.system: s.arena_score for s in boards[0].strengths} == pytest.approx(expected, abs=0.05)
    assert [s.system for s in boards[0].strengths] == sorted(expected, key=lambda name: -expected[name])

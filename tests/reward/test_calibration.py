"""Anchor calibration: planted biases are recovered, published figures reproduced, and bad votes reported."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from plaudit.cli.main import app
from plaudit.errors import ModelError, VoteError
from plaudit.evaluate.rewards import calibration_study
from plaudit.reward.calibration import Calibration, fit_calibration, load_calibration, save_calibration
from plaudit.reward.scored_votes import ScoredVote

VOTES = Path(os.environ.get("PLAUDIT_VOTES_DIR", Path(__file__).parents[3] / "shared" / "votes"))
PUBLISHED = {0: 55.1, 3: 56.6, 10: 57.6, 30: 57.7, 100: 60.1, 250: 61.2}


def vote(system_a: str, system_b: str, margin: float, target: float, id: str = "") -> ScoredVote:
    return ScoredVote(system_a, system_b, "", margin, 0.0, target, id)


def planted(count: int, biases: dict[str, float], seed: int = 0) -> list[ScoredVote]:
    """Votes sampled from the model."""
    rng = np.random.default_rng(seed)
    votes = []
    for number in range(count):
        a, b = rng.choice(sorted(biases), size=2, replace=False)
        margin = rng.normal()
        chance = 1 / (1 + np.exp(-(margin - biases[a] + biases[b])))
        votes.append(vote(str(a), str(b), float(margin), float(rng.random() < chance), str(number)))
    return votes


def test_planted_biases_are_recovered_within_their_errors() -> None:
    biases = {"anchor": 0.0, "loud": 1.2, "new": -0.8, "other": 0.3}
    result = fit_calibration(planted(4000, biases), "anchor", penalty=1e-3)
    for system, bias in biases.items():
        assert abs(result.biases[system].value - bias) <= 3 * result.biases[system].error + 1e-12
        assert result.apply(2.0, system) == pytest.approx(2.0 - result.biases[system].value)
    assert result.biases["anchor"].error == 0 and 0.05 < result.biases["loud"].error < 0.15
    assert result.temperature == pytest.approx(1.0, abs=0.1)
    assert result.unknown(["anchor", "nobody", "nobody"]) == ["nobody"] and result.apply(2.0, "nobody") == 2.0


def test_errors_are_the_spread_of_fits_to_other_votes() -> None:
    biases = {"a": 0.0, "b": 1.0, "c": -1.0}
    fits = [fit_calibration(planted(300, biases, seed), "a", 1e-3).biases["b"] for seed in range(60)]
    assert np.std([bias.value for bias in fits]) == pytest.approx(np.mean([bias.error for bias in fits]), rel=0.3)


def test_one_against_one_has_the_bias_of_the_textbook() -> None:
    """Scores equal and the penalty gone: the bias is the log odds of the wins."""
    result = fit_calibration([vote("new", "old", 0.0, float(n < 30)) for n in range(40)], "old", penalty=1e-9)
    assert result.biases["new"].value == pytest.approx(-np.log(30 / 10), abs=1e-6)
    assert result.biases["new"].error == pytest.approx(np.sqrt(1 / 30 + 1 / 10), abs=1e-6)


def test_errors_shrink_as_the_root_of_the_votes() -> None:
    few, many = (fit_calibration(planted(n, {"a": 0.0, "b": 0.5}), "a", 1e-6).biases["b"].error for n in (400, 6400))
    assert few / many == pytest.approx(4, rel=0.15)


@given(st.integers(0, 1000), st.floats(0.01, 100.0))
def test_the_loss_is_at_its_least(seed: int, penalty: float) -> None:
    votes = planted(60, {"a": 0.0, "b": 1.0, "c": -1.0}, seed)
    result = fit_calibration(votes, "a", penalty)

    def loss(calibration: Calibration) -> float:
        margins = [calibration.margin(v) * (1 if v.target else -1) for v in votes]
        kept = sum(bias.value**2 for bias in calibration.biases.values())
        return float(np.log1p(np.exp(-np.array(margins))).sum() + penalty * kept)

    for system in ("b", "c"):
        for step in (-0.01, 0.01):
            moved = replace(result.biases[system], value=result.biases[system].value + step)
            assert loss(replace(result, biases=result.biases | {system: moved})) > loss(result)


def test_order_does_not_matter_and_swapping_sides_does_not() -> None:
    votes = planted(80, {"a": 0.0, "b": 1.0, "c": -1.0})
    swapped = [ScoredVote(v.system_b, v.system_a, "", v.score_b, v.score_a, 1 - v.target) for v in reversed(votes)]
    one, two = fit_calibration(votes, "a"), fit_calibration(swapped, "a")
    for system in one.biases:
        assert one.biases[system].value == pytest.approx(two.biases[system].value, abs=1e-8)


def test_a_heavy_penalty_or_no_votes_leave_scores_as_they_are() -> None:
    heavy = fit_calibration(planted(50, {"a": 0.0, "b": 2.0}), None, penalty=1e9)
    assert max(abs(bias.value) for bias in heavy.biases.values()) < 1e-6
    assert fit_calibration([], "a").biases == {} and fit_calibration([], "a").apply(1.5, "a") == 1.5


def test_ties_and_self_comparisons_carry_no_information() -> None:
    useless = [vote("a", "b", 1.0, 0.5), vote("a", "a", 1.0, 1.0)]
    votes = planted(40, {"a": 0.0, "b": 1.0})
    assert fit_calibration(votes + useless, "a") == fit_calibration(votes, "a")
    with pytest.raises(VoteError, match="none of 2 votes decides between two systems"):
        fit_calibration(useless)


def test_one_sided_votes_give_finite_biases() -> None:
    result = fit_calibration([vote("a", "b", 0.0, 1.0)] * 30, "a")
    assert 1 < result.biases["b"].value < 10 and np.isfinite(result.temperature)


def test_a_saved_calibration_comes_back_and_other_files_are_refused(tmp_path: Path) -> None:
    result = fit_calibration(planted(60, {"a": 0.0, "b": 1.0}), "a")
    save_calibration(tmp_path / "c.json", result)
    assert load_calibration(tmp_path / "c.json") == result
    whole = json.loads((tmp_path / "c.json").read_text())
    damages: list[object] = [
        [1],
        {},
        whole | {"kind": "other"},
        whole | {"biases": {"a": 1}},
        whole | {"temperature": float("nan")},
        {key: value for key, value in whole.items() if key != "anchor"},
    ]
    for damaged in damages:
        (tmp_path / "d.json").write_text(json.dumps(damaged))
        with pytest.raises(ModelError, match="is no calibration") as error:
            load_calibration(tmp_path / "d.json")
        assert "\n" not in str(error.value)


def test_the_study_sees_a_planted_bias_and_none_where_there_is_none() -> None:
    biased, fair = ({"a": 0.0, "b": bias, "c": -bias} for bias in (1.5, 0.0))
    rows = {row.votes: row for row in calibration_study(planted(600, biased), "a", [0, 100], range(3), 250)}
    assert rows[100].gain.low > 0 and rows[100].p_holm < 0.01 and len(rows[100].splits) == 3
    assert rows[0].gain.mean == 0 and np.mean(rows[0].splits) == pytest.approx(rows[0].accuracy.mean)
    rows = {row.votes: row for row in calibration_study(planted(600, fair), "a", [0, 100], range(3), 250)}
    assert rows[100].p_holm > 0.05
    with pytest.raises(VoteError, match="fewer than the 700"):
        calibration_study(planted(600, fair), "a", [0], range(3), 350)
    with pytest.raises(VoteError, match="300 votes are more than the 250"):
        calibration_study(planted(600, fair), "a", [300], range(3), 250)


def test_the_study_splits_as_published() -> None:
    votes = planted(40, {"a": 0.0, "b": 1.0})
    order = list(range(40))
    random.Random(7).shuffle(order)
    calibration = fit_calibration([votes[i] for i in order[:5]], "a")
    expected = np.mean([(calibration.margin(votes[i]) > 0) == (votes[i].target == 1) for i in order[15:30]])
    assert calibration_study(votes, "a", [5], [7], 15)[1].splits == [pytest.approx(expected)]


def test_the_command_fits_saves_and_warns(tmp_path: Path) -> None:
    lines = ["battle_id,system_a,system_b,preference,tj_a,tj_b"]
    lines += [f"{i},x,{other},{'AB'[i % 2]},{i / 10},0.2" for i, other in enumerate("yzuv")]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    out = tmp_path / "c.json"
    words = ["reward", "calibrate", str(tmp_path / "votes.csv"), "-o", str(out), "--anchor-system", "nobody"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert load_calibration(out).biases["x"].votes == 4
    assert "no vote is of nobody" in done.stderr and "4 decided votes for 5 systems are too few" in done.stderr


@pytest.mark.skipif(not VOTES.is_dir(), reason=f"no real votes in {VOTES}; set PLAUDIT_VOTES_DIR")
@pytest.mark.parametrize("pin", ["sonauto-v2-2", None])
def test_published_accuracies_are_reproduced(pin: str | None) -> None:
    order = VOTES / "music_arena_postcutoff_order.json"
    words = ["reward", "calibrate", str(VOTES / "music_arena_postcutoff_scored.csv"), "--study", str(order), "--json"]
    done = CliRunner().invoke(app, words + (["--anchor-system", pin] if pin else []))
    assert done.exit_code == 0, done.output
    rows = {row["votes"]: row for row in json.loads(done.stdout)}
    for size, published in PUBLISHED.items():
        assert 100 * rows[size]["accuracy"]["mean"] == pytest.approx(published, abs=1.0 if pin else 0.05)
    assert 100 * rows[0]["accuracy"]["mean"] == pytest.approx(55.1, abs=0.05)

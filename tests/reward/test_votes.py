import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.audio import write_wav
from plaudit.errors import VoteError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.scored_votes import read_scored_votes
from plaudit.reward.votes import (
    VoteSplit,
    load_training_votes,
    read_all_votes,
    read_votes,
    split_votes,
    write_votes,
)
from plaudit.synthetic.clap import load_synthetic_clap
from plaudit.synthetic.statistics import load_statistics
from plaudit.types import Vote


def vote(number: int, prompt: str = "calm piano", a: str = "x", b: str = "y", winner: str = "a") -> Vote:
    return Vote(f"v{number}", prompt, a, b, winner, "one", "two", "test", "listener 1")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_votes_round_trip(tmp_path: Path, suffix: str) -> None:
    votes = [vote(0, 'a, "quoted"\nprompt\u2028é'), vote(1, "", winner="tie"), vote(2, winner="b")]
    write_votes(tmp_path / f"votes{suffix}", votes)
    assert read_votes(tmp_path / f"votes{suffix}") == votes


GOOD_ROWS = [{"id": "1", "prompt": "", "a": "x", "b": "y", "winner": "a"}] * 2
GOOD = '{"id":"1","prompt":"","a":"x","b":"y","winner":"a","system_a":"","system_b":"","source":"","listener":""}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD.replace('"1"', '"2"').replace('"winner":"a"', '"winner":"c"'), "line 2: field 'winner'.*'c'"),
        (GOOD + GOOD.replace('"b":"y",', "").replace('"1"', '"2"'), "line 2: field 'b' is missing"),
        (GOOD + GOOD, "line 2: id '1' appears twice"),
        (GOOD + "{oops\n", "line 2: not valid JSON"),
        (GOOD + "[1]\n", "line 2: a vote is an object"),
        (GOOD.replace('"a":"x"', '"a":3'), "line 1: field 'a' must be text, not 3"),
        (GOOD.replace('"a":"x"', '"a":""'), "line 1: field 'a' is empty"),
        (GOOD.replace('"b":"y"', '"b":"x"'), "line 1: fields 'a' and 'b' name the same clip"),
        ("", "holds no votes"),
    ],
)
def test_a_bad_record_is_named_by_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "votes.jsonl").write_text(text)
    with pytest.raises(VoteError, match=message):
        read_votes(tmp_path / "votes.jsonl")


def test_a_missing_csv_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("id,prompt,b\n1,p,y\n")
    with pytest.raises(VoteError, match="has no column 'a', 'winner'; its columns are 'id', 'prompt', 'b'"):
        read_votes(tmp_path / "votes.csv")


def test_prompt_two_clips_and_the_winner_are_enough(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(
        'winner, prompt, a, b\nA,"slow, sad piano",one.wav,two.wav\nboth good,,two.wav, three.wav\n B ,x,1,2\n'
    )
    assert read_votes(tmp_path / "votes.csv") == [
        Vote("1", "slow, sad piano", "one.wav", "two.wav", "a", "", "", "", ""),
        Vote("2", "", "two.wav", "three.wav", "tie", "", "", "", ""),
        Vote("3", "x", "1", "2", "b", "", "", "", ""),
    ]
    (tmp_path / "votes.jsonl").write_text('{"prompt": "p", "a": "x", "b": "y", "winner": "a", "id": null, "more": 1}\n')
    assert read_votes(tmp_path / "votes.jsonl") == [Vote("1", "p", "x", "y", "a", "", "", "", "")]


def test_all_problems_are_reported_in_one_line(tmp_path: Path) -> None:
    bad = [*GOOD_ROWS, {"prompt": "p", "a": "x"}, {"prompt": "p", "a": "x", "b": "x", "winner": "c"}, 3]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    with pytest.raises(VoteError) as report:
        read_votes(tmp_path / "votes.jsonl")
    said = str(report.value)
    assert "\n" not in said
    for problem in (
        "line 2: id '1' appears twice (first in line 1)",
        "line 3: fields 'b', 'winner' are missing",
        "line 4: field 'winner' must be a, b, tie or both_bad, not 'c'",
        "line 4: fields 'a' and 'b' name the same clip",
        "line 5: a vote is an object with the fields prompt, a, b, winner",
    ):
        assert problem in said
    (tmp_path / "votes.csv").write_text("prompt,a,b,winner\n" + "p,x,y,?\n" * 9)
    with pytest.raises(VoteError, match=r"line 2: .* line 6: field 'winner' must .* and 4 more$"):
        read_votes(tmp_path / "votes.csv")


def test_files_that_cannot_be_votes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(VoteError, match="is not UTF-8 text"):
        read_votes(tmp_path / "votes.jsonl")
    with pytest.raises(VoteError, match="does not exist"):
        read_votes(tmp_path / "none.jsonl")
    with pytest.raises(VoteError, match=r"neither \.jsonl nor \.csv"):
        write_votes(tmp_path / "votes.txt", [vote(1)])


def parts(split: VoteSplit) -> list[list[Vote]]:
    return [split.train, split.validation, split.test]


def disjoint(sets: list[set[str]]) -> bool:
    return sum(map(len, sets)) == len(set().union(*sets))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(41, 80)),
        min_size=3,
        max_size=60,
        unique_by=lambda row: row[1:],
    ),
    st.integers(0, 1000),
)
def test_parts_are_nonempty_and_disjoint_where_possible(rows: list[tuple[int, int, int]], seed: int) -> None:
    votes = [vote(n, f"p{p}" if p else "", f"c{a}", f"c{b}") for n, (p, a, b) in enumerate(rows)]
    split = split_votes(votes, 0.25, 0.25, seed)
    assert all(parts(split))
    assert sorted(v.id for part in parts(split) for v in part) == sorted(v.id for v in votes)
    if split.prompts_apart:
        assert disjoint([{v.prompt for v in part if v.prompt} for part in parts(split)])
    assert ("prompts" in split.note, "clips" in split.note) == (not split.prompts_apart, not split.clips_apart)
    if split.clips_apart:
        assert disjoint([{clip for v in part for clip in (v.a, v.b)} for part in parts(split)])


def test_clips_are_disjoint_where_prompts_allow() -> None:
    votes = [vote(n, f"p{n // 3}", f"a{n // 3}-{n}", f"b{n // 3}-{n}") for n in range(600)]
    split = split_votes(votes, 0.2, 0.2, seed=1)
    assert split.clips_apart
    assert len(split.validation) == pytest.approx(120, abs=45) and len(split.test) == pytest.approx(120, abs=45)
    assert split_votes(votes[::-1], 0.2, 0.2, seed=1).test == split.test[::-1]
    assert split_votes(votes, 0.2, 0.2, seed=2).test != split.test


def test_a_clip_in_every_vote_leaves_prompts_apart_only() -> None:
    split = split_votes([vote(n, f"p{n}", "same", f"b{n}") for n in range(200)])
    assert split.prompts_apart and not split.clips_apart
    assert disjoint([{v.prompt for v in part} for part in parts(split)])


def test_one_prompt_for_all_votes_leaves_clips_apart_only() -> None:
    split = split_votes([vote(n, "calm piano", f"a{n}", f"b{n}") for n in range(30)])
    assert all(parts(split)) and (split.prompts_apart, split.clips_apart) == (False, True)
    assert "share prompts with training votes" in split.note
    ring = split_votes([vote(n, "calm piano", f"{n}", f"{(n + 1) % 6}") for n in range(6)])
    assert all(parts(ring)) and (ring.prompts_apart, ring.clips_apart) == (False, False)


def test_too_few_votes_or_invalid_fractions_are_refused() -> None:
    with pytest.raises(VoteError, match="2 votes on 1 pair of clips leave none for test; give votes on at least 3"):
        split_votes([vote(0), vote(1)])
    with pytest.raises(VoteError, match="must be fractions"):
        split_votes([vote(0)], 0.5, 0.5)


SAYINGS = ["A", "both good", "BOTH_BAD", "b", "Both bad", "both-bad"]


def write_sayings(path: Path, winners: list[str]) -> Path:
    path.write_text("prompt,a,b,winner\n" + "".join(f"p{n},x{n},y{n},{w}\n" for n, w in enumerate(winners)))
    return path


def test_votes_that_find_both_clips_bad_are_left_out_or_ties(tmp_path: Path) -> None:
    file = write_sayings(tmp_path / "votes.csv", SAYINGS)
    assert [vote.winner for vote in read_all_votes(file)] == ["a", "tie", "both_bad", "b", "both_bad", "both_bad"]
    assert [(vote.id, vote.winner) for vote in read_votes(file)] == [("1", "a"), ("2", "tie"), ("4", "b")]
    assert [vote.winner for vote in read_votes(file, "tie")] == ["a", "tie", "tie", "b", "tie", "tie"]
    write_votes(tmp_path / "again.jsonl", read_all_votes(file))
    assert read_all_votes(tmp_path / "again.jsonl") == read_all_votes(file)
    with pytest.raises(VoteError, match="all 2 votes find both clips bad"):
        read_votes(write_sayings(file, ["both_bad"] * 2))


def test_training_says_how_many_votes_it_leaves_out(tmp_path: Path) -> None:
    for name in (f"{side}{n}" for n in range(len(SAYINGS)) for side in "xy"):
        write_wav(tmp_path / "audio" / f"{name}.wav", np.sin(np.arange(16000) * 0.05).astype(np.float32), 16000)
    file = write_sayings(tmp_path / "votes.csv", SAYINGS)
    encoders = RewardFeatures(load_synthetic_clap(), load_statistics(), ("audio",))
    data = load_training_votes([file] * 3, tmp_path / "audio", encoders, tmp_path / "features")
    assert [len(part) for part in data.votes] == [3, 3, 3]
    assert data.notes == ["9 votes find both clips bad and are left out; --both-bad tie keeps them"]
    kept = load_training_votes([file] * 3, tmp_path / "audio", encoders, tmp_path / "features", both_bad="tie")
    assert [len(part) for part in kept.votes] == [6, 6, 6] and kept.notes == []


def test_scored_votes_that_find_both_clips_bad(tmp_path: Path) -> None:
    rows = "".join(f"s,t,{winner},0,1\n" for winner in SAYINGS)
    (tmp_path / "scored.csv").write_text("system_a,system_b,preference,tj_a,tj_b\n" + rows)
    assert [vote.target for vote in read_scored_votes(tmp_path / "scored.csv")] == [1.0, 0.5, 0.0]
    assert len(read_scored_votes(tmp_path / "scored.csv", both_bad="tie")) == 6

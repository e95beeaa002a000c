"""Preference pairs: which are chosen, and files of them, one's own and others'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plaudit.errors import CorpusError
from plaudit.stages.pairs import (
    Candidate,
    Pair,
    PairSettings,
    choose_pairs,
    clips_of,
    filtered,
    read_pairs,
    write_lines,
)


def scored(captions: str, clap: list[float], reward: list[float] | None = None) -> list[Candidate]:
    rewards = reward or [0.0] * len(clap)
    rows = zip(captions, clap, rewards, strict=True)
    return [Candidate(f"clips/{i}.wav", caption, r, c, 1.5) for i, (caption, c, r) in enumerate(rows)]


def names(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [(p.caption, p.winner[6], p.loser[6]) for p in pairs]


def test_pairs_are_best_against_worst_and_the_widest_come_first() -> None:
    candidates = scored("xxxyya", [0.2, 0.5, 0.3, 0.9, 0.1, 0.7])
    pairs = choose_pairs(candidates, PairSettings(pairs=5))
    assert names(pairs) == [("y", "3", "4"), ("x", "1", "0")]
    assert pairs[0].margin == pytest.approx(0.8) and pairs[0].score == 1.5
    assert choose_pairs(candidates, PairSettings(pairs=1)) == pairs[:1]


def test_they_can_be_chosen_by_reward_and_filtered_by_margin() -> None:
    candidates = scored("xxyy", [0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 0.1, 0.2])
    assert names(choose_pairs(candidates, PairSettings(criterion="reward"))) == [("x", "0", "1"), ("y", "3", "2")]
    assert names(choose_pairs(candidates, PairSettings(criterion="reward", min_margin=0.5))) == [("x", "0", "1")]


def test_several_pairs_of_a_caption_share_no_clip() -> None:
    candidates = scored("xxxxx", [0.1, 0.5, 0.3, 0.4, 0.2])
    settings = PairSettings(captions=1, candidates=5, per_caption=2, pairs=2)
    assert names(choose_pairs(candidates, settings)) == [("x", "1", "0"), ("x", "3", "4")]


def test_filters_hold_for_pairs_of_others() -> None:
    given = [Pair("x", f"{i}.wav", "b.wav", margin) for i, margin in enumerate([0.1, 0.3, 0.2])]
    assert [p.winner for p in filtered(given, PairSettings(per_caption=2))] == ["1.wav", "2.wav"]
    untold = [Pair("x", "a.wav", "b.wav"), Pair("y", "c.wav", "d.wav")]
    assert filtered(untold, PairSettings(pairs=1)) == untold[:1]
    with pytest.raises(CorpusError, match="states no margin"):
        filtered(untold, PairSettings(min_margin=0.1))


def test_pairs_are_read_as_they_were_written_and_notes_of_others_are_left(tmp_path: Path) -> None:
    pairs = [Pair("café", "a.wav", "b.wav", 0.5, None), Pair("y", "c.wav", "d.wav", None, 1.0)]
    write_lines(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path) == read_pairs(tmp_path / "pairs.jsonl") == pairs
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"caption": "z", "winner": "e.wav", "loser": "f.wav", "listener": 7}) + "\n")
    assert read_pairs(tmp_path)[2] == Pair("z", "e.wav", "f.wav")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: a pair is an object with caption, winner and loser"),
        ('{"caption": "x", "winner": "a.wav"}', "line 2: loser must be a text"),
        ('{"caption": " ", "winner": "a.wav", "loser": "b.wav"}', "line 2: caption must be a text"),
        ('{"caption": "x", "winner": "a.wav", "loser": "a.wav"}', "line 2: winner and loser are the same file"),
        ('{"caption": "x", "winner": "a.wav", "loser": "b.wav", "margin": "big"}', "line 2: margin must be a number"),
        ('{"caption": "x", "winner": "a.wav", "loser": "b.wav", "score": NaN}', "line 2: score must be a number"),
    ],
)
def test_a_malformed_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"caption": "x", "winner": "a.wav", "loser": "b.wav"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=said) as error:
        read_pairs(path)
    assert "\n" not in str(error.value)


def test_files_that_are_missing_empty_or_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"pairs.jsonl does not exist"):
        read_pairs(tmp_path)
    (tmp_path / "pairs.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(CorpusError, match="not UTF-8"):
        read_pairs(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match="holds no pairs"):
        read_pairs(tmp_path)
    with pytest.raises(CorpusError, match=r"a.wav stands under two captions"):
        clips_of([Pair("x", "a.wav", "b.wav"), Pair("y", "a.wav", "c.wav")])

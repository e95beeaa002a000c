"""Readers of published votes, with errors that name file and column."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from plaudit.errors import VoteError
from plaudit.reward.sources import SOURCES, aime, music_arena, musicprefs, read_source, songeval
from plaudit.types import Vote
from tests.reward.sources import layouts
from tests.reward.sources.layouts import battle, rating, wav, write_file, write_parquet


def test_music_arena_as_json(tmp_path: Path) -> None:
    battles = [
        battle(0),
        battle(1, preference="B", user_pseudonym=None, prompt=""),
        battle(2, preference="TIE"),
        battle(3, preference="BOTH_BAD"),
        battle(4, audio_b=""),
        battle(5, preference=None),
    ]
    result = music_arena.read(layouts.music_arena(tmp_path, battles))
    assert [vote.winner for vote in result.votes] == ["a", "b", "tie", "both_bad"]
    assert result.votes[0] == Vote(
        "uuid-0", "prompt 0", "uuid-0_a", "uuid-0_b", "a", "sonauto-v2-2", "riffusion-fuzz-1-0", "music-arena", "user 0"
    )
    assert result.votes[1].listener == "" and result.votes[1].prompt == ""
    assert result.skipped == {"audio not published": 1, "no vote": 1}
    assert len(result.clips) == 8 and all(clip.file.is_file() for clip in result.clips.values())


def test_music_arena_as_the_logs_of_its_site(tmp_path: Path) -> None:
    log = {
        "uuid": "uuid-9",
        "prompt": None,
        "prompt_detailed": {"overall_prompt": "jazz trio", "instrumental": True},
        "prompt_user": {"salted_ip": "abc"},
        "a_audio_url": "https://storage.example.org/bucket/one.mp3",
        "b_audio_url": "https://storage.example.org/bucket/two.mp3",
        "a_metadata": {"system_key": {"system_tag": "acestep", "variant_tag": "x"}},
        "b_metadata": {"system_key": {"system_tag": "musicgen-small"}},
        "vote": {"preference": "B"},
    }
    write_file(tmp_path / "log.json", json.dumps(log))
    write_file(tmp_path / "one.mp3", wav(300))
    result = music_arena.read(tmp_path)
    (vote,) = result.votes
    assert (vote.prompt, vote.winner, vote.system_a, vote.system_b) == ("jazz trio", "b", "acestep", "musicgen-small")
    assert vote.listener == "abc" and set(result.clips) == {"uuid-9_a"}


def test_music_arena_as_parquet_leaves_the_audio_where_it_is(tmp_path: Path) -> None:
    battles = [battle(0), battle(1, preference="B")]
    columns = {name: [record[name] for record in battles] for name in battles[0]}
    for side in ("audio_a", "audio_b"):
        columns[side] = [{"bytes": wav(300), "path": f"{n}{side}.wav"} for n in range(2)]
    columns["audio_b"][1] = None
    write_parquet(tmp_path / "2026_02" / "train.parquet", columns, ("audio_a", "audio_b"))
    result = music_arena.read(tmp_path)
    assert [vote.id for vote in result.votes] == ["uuid-0"] and result.skipped == {"audio not published": 1}
    assert result.clips["uuid-0_b"].column == "audio_b" and result.clips["uuid-0_b"].row == 0


def test_musicprefs(tmp_path: Path) -> None:
    result = musicprefs.read(layouts.musicprefs(tmp_path))
    assert [vote.id for vote in result.votes] == ["prefs_000000", "prefs_000001", "prefs_000002"]
    assert [vote.winner for vote in result.votes] == ["a", "tie", "b"]
    assert result.votes[0].prompt == "slow, sad piano" and result.votes[0].system_b == "stable-audio"
    assert (result.clips["z_1"].file.name, result.clips["z_1"].row) == ("train-00001-of-00002.parquet", 1)


def test_aime(tmp_path: Path) -> None:
    result = aime.read(layouts.aime(tmp_path))
    first, second = result.votes
    assert (first.id, first.winner, second.id, second.winner) == ("aime_000000", "a", "aime_000001", "b")
    assert first.prompt == "newage, world, celtic" and first.system_a == "Suno v3"
    assert (first.a, first.b) == ("aime-05331-2", "aime-01226-0")
    assert (result.clips[first.a].begin, result.clips[first.a].end) == (2.0, 3.0)
    assert second.b not in result.clips


def test_songeval(tmp_path: Path) -> None:
    ratings = [[rating(3), rating(4)], [rating(3), rating(3)], [rating(3, Clarity=4), rating(3)]]
    result = songeval.read(layouts.songeval(tmp_path, ratings))  # means 3.5, 3.0, 3.1
    assert [(vote.a, vote.b, vote.winner) for vote in result.votes] == [("songeval-0", "songeval-1", "a")]
    assert result.votes[0].prompt == result.votes[0].system_a == result.votes[0].listener == ""
    assert len(result.clips) == 3
    assert len(read_source("songeval", tmp_path, 0.1).votes) == 3
    with pytest.raises(VoteError, match="no two of 3 songs are rated 3 apart"):
        songeval.read(tmp_path, 3.0)


def test_songeval_draws_as_many_pairs_as_tunejury_from_more(tmp_path: Path) -> None:
    ratings = [[rating(1 + number % 5)] for number in range(120)]  # 5,760 pairs are apart
    result = songeval.read(layouts.songeval(tmp_path, ratings))
    assert len(result.votes) == 3760 and len({frozenset((v.a, v.b)) for v in result.votes}) == 3760
    assert result.votes == songeval.read(tmp_path).votes
    value = {f"songeval-{number}": 1 + number % 5 for number in range(120)}
    assert all((value[v.a] > value[v.b]) == (v.winner == "a") and value[v.a] != value[v.b] for v in result.votes)
    assert 0.45 < sum(v.winner == "a" for v in result.votes) / 3760 < 0.55


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VoteError, match="does not hold"):
        read_source(name, tmp_path)
    with pytest.raises(VoteError, match="is not a folder"):
        read_source(name, tmp_path / "nowhere")


def without(column: str) -> Callable[[Path], None]:
    """Takes a column out of every Parquet file that has it."""

    def change(folder: Path) -> None:
        for path in folder.rglob("*.parquet"):
            table = pyarrow.parquet.read_table(path)
            if column in table.column_names:
                pyarrow.parquet.write_table(table.drop_columns([column]), path)

    return change


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (path,) = folder.rglob(name)
        path.write_text(path.read_text().replace(old, new))

    return change


def arena(folder: Path) -> None:
    layouts.music_arena(folder, [battle(0)])


def songs(folder: Path) -> None:
    layouts.songeval(folder, [[rating(1)], [rating(5)]])


@pytest.mark.parametrize(
    ("name", "make", "change", "message"),
    [
        ("music-arena", arena, replaced("*.json", '"system_a"', '"system"'), r"log-0\.json: field 'system_a' is miss"),
        ("music-arena", arena, replaced("*.json", '"A"', '"left"'), "column 'preference' must be one of .*'left'"),
        ("music-arena", arena, replaced("*.json", "{", "{,"), r"log-0\.json is not valid JSON"),
        ("musicprefs", layouts.musicprefs, replaced("*.csv", "musicality", "music"), "csv has no column 'musicality'"),
        ("musicprefs", layouts.musicprefs, replaced("*.csv", "prompt", "text"), "csv has no column 'prompt'"),
        ("musicprefs", layouts.musicprefs, replaced("*.csv", "A_wins,B", "x,B"), "line 2: column 'musicality' must"),
        ("musicprefs", layouts.musicprefs, without("audio"), "has no column audio"),
        ("aime", layouts.aime, without("answer"), "parquet has no column answer; it has question-type"),
        ("aime", layouts.aime, without("id"), "parquet has no column id"),
        ("aime", lambda folder: layouts.aime(folder, (1, 3)), None, "row 1: column 'answer' must be 1 or 2, not 3"),
        ("songeval", songs, replaced("*.jsonl", '"Clarity"', '"Clear"'), "line 1: column 'annotation' needs 'Clarity'"),
        ("songeval", songs, replaced("*.jsonl", ": 5", ": 6"), "line 2: column 'annotation' needs .* not 6"),
        ("songeval", songs, replaced("*.jsonl", "annotation", "ratings"), "'annotation' must be a list"),
        ("songeval", songs, replaced("*.jsonl", "mp3/1", "mp3/0"), "line 2: column 'file_name' names .* second time"),
    ],
)
def test_errors_name_file_and_column(
    tmp_path: Path, name: str, make: Callable[[Path], object], change: Callable[[Path], None] | None, message: str
) -> None:
    make(tmp_path)
    if change is not None:
        change(tmp_path)
    with pytest.raises(VoteError, match=message) as caught:
        read_source(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    layouts.aime(tmp_path)
    (tmp_path / "AIME" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(VoteError, match=r"train-00000-of-00001\.parquet is not a Parquet file"):
        aime.read(tmp_path)


def test_an_unknown_source_and_a_gap_for_votes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VoteError, match="no source of votes 'nowhere'; there are music-arena"):
        read_source("nowhere", tmp_path)
    with pytest.raises(VoteError, match="aime has votes, not ratings"):
        read_source("aime", tmp_path, 0.5)

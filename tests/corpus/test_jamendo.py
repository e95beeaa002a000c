"""MTG-Jamendo's layout and captions, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.corpus.layouts import list_jamendo
from plaudit.corpus.manifest import split_of
from plaudit.errors import AudioError, CorpusError


def folder(place: Path, *files: str) -> Path:
    for file in files:
        (place / "audio" / file).parent.mkdir(parents=True, exist_ok=True)
        (place / "audio" / file).touch()
    return place / "audio"


def captions(place: Path, content: Any) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (place / "captions.json").write_bytes(text)
    return place / "captions.json"


def of(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"path": path, "caption": caption} for path, caption in pairs]


def test_files_captions_scores_and_splits(tmp_path: Path) -> None:
    audio = folder(tmp_path, "14/214.mp3", "14/214_instrumental.mp3", "15/315.low.mp3", "15/415.mp3", "notes.txt")
    file = captions(tmp_path, of(("x/14/214.mp3", " calm "), ("15/315.mp3", "loud"), ("16/16.mp3", "gone")))
    (tmp_path / "scores.csv").write_text(
        "track_id,reward_score\ntrack_0000214,0.5\nsong_214,9\njamendo_0000315,0.25\nother_315,9\n"
    )
    listing = list_jamendo(audio, file, tmp_path / "scores.csv", 0.3, 0.3)
    low, calm, gone = sorted(listing.entries, key=lambda entry: (entry.reward is None, entry.reward))
    assert (calm.id, calm.caption, calm.reward) == ("14/214", "calm", 0.5)
    assert calm.path == audio / "14/214_instrumental.mp3" and low.path == audio / "15/315.low.mp3"
    assert (low.reward, gone.reward, gone.path) == (0.25, None, audio / "16/16.mp3")
    assert [e.split for e in (calm, low, gone)] == [split_of(n, 0.3, 0.3) for n in ("214", "315", "16")]
    assert [note.split(";")[0] for note in listing.notes] == [
        "1 audio files have no caption and are left out", "1 tracks have no score and get no reward",
        f"2 of 4 scores in {tmp_path / 'scores.csv'} are of no clip",
    ]  # fmt: skip
    assert "415" in listing.notes[0]


def test_repeated_captions_count_once_and_contradictions_are_refused(tmp_path: Path) -> None:
    audio = folder(tmp_path, "14/214.mp3")
    twice = captions(tmp_path, of(("14/214.mp3", "calm"), ("14/214_instrumental.mp3", "calm")))
    listing = list_jamendo(audio, twice)
    assert len(listing.entries) == 1 and "are repeated" in listing.notes[0]
    with pytest.raises(CorpusError, match=r"14/214 has two different captions \(the second is item 2\)"):
        list_jamendo(audio, captions(tmp_path, of(("14/214.mp3", "calm"), ("14/214.mp3", "loud"))))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b'[{"path": "a/b.mp3", "caption"', "not valid JSON"),
        (b"\xff\xfe", "not a UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        ({}, "must be a list"),
        ([], "must be a list"),
        ([7], "item 1"),
        ([{"path": "14/214.mp3", "caption": "x"}, {"path": "15/3.mp3"}], "item 2"),
        (of(("214.mp3", "no folder")), "item 1"),
        ([{"path": None, "caption": "x"}], "item 1"),
        (of(("14/214.mp3", "\ud83d")), "half of a character"),
    ],
)
def test_malformed_captions_are_one_line(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason) as caught:
        list_jamendo(folder(tmp_path, "14/214.mp3"), captions(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    file = captions(tmp_path, of(("14/214.mp3", "x")))
    with pytest.raises(AudioError, match="not a folder"):
        list_jamendo(tmp_path / "audio", file)
    with pytest.raises(CorpusError, match="does not exist"):
        list_jamendo(tmp_path, tmp_path / "none.json")

"""Scores of tracks, joined to clips by id, file name or the number at their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.corpus.layouts import FolderCorpus, ScoreTable
from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError


def table(folder: Path, text: str) -> Path:
    (folder / "scores.csv").write_text(text)
    return folder / "scores.csv"


def entry(id: str, file: str = "x.mp3") -> Entry:
    return Entry(id, "a caption", "train", "here", None, Path(file))


def test_clips_are_looked_up_by_id_file_and_number(tmp_path: Path) -> None:
    rows = "jamendo_0000214,-1.5,x\nfma_000007,2,x\njamendo_7,3,x\nsong,0.25,x\n"
    scores = ScoreTable(table(tmp_path, "track_id,reward_score,more\n" + rows))
    assert scores.score_of(entry("jamendo_0000214")) == -1.5
    assert scores.score_of(entry("14/214", "14/214.mp3")) == -1.5
    assert scores.score_of(entry("track_0000214")) == -1.5
    assert scores.score_of(entry("some/song", "some/song.flac")) == 0.25
    assert scores.score_of(entry("7", "07/7.mp3")) is None  # two tracks end with 7
    assert scores.score_of(entry("jamendo_7")) == 3
    assert scores.score_of(entry("other")) is None


def test_a_folder_takes_its_rewards_from_the_table(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,caption\n14/214.mp3,slow\n15/999.mp3,fast\n")
    scores = table(tmp_path, "track_id,reward_score\njamendo_214,1.5\n")
    found = FolderCorpus(tmp_path, Path("clips.csv"), score_table=scores).entries()
    assert [e.reward for e in found] == [1.5, None]
    other = table(tmp_path, "id,mine\n999,0.5\n")
    named = FolderCorpus(tmp_path, Path("clips.csv"), reward_column="mine", score_table=other, score_id_column="id")
    assert [e.reward for e in named.entries()] == [None, 0.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; it needs a header line"),
        ("track_id,score\na,1\n", "has no column 'reward_score'; its columns are 'track_id', 'score'"),
        ("track_id,reward_score\n", "no rows"),
        ("track_id,reward_score\na,loud\n", "line 2: needs an id and a finite score, got 'a' and 'loud'"),
        ("track_id,reward_score\na,nan\n", "line 2"),
        ("track_id,reward_score\n,1\n", "line 2"),
        ("track_id,reward_score\na,1\nb,1\na,2\n", "line 4: 'a' has two different scores"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CorpusError, match=said) as error:
        ScoreTable(table(tmp_path, text))
    assert "\n" not in str(error.value)
    with pytest.raises(CorpusError, match="does not exist"):
        ScoreTable(tmp_path / "nowhere.csv")

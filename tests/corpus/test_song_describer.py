"""The Song Describer Dataset's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.corpus.layouts import list_song_describer
from plaudit.errors import CorpusError

HEADER = "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"


def write(place: Path, rows: str, table: str = "song_describer.csv") -> Path:
    for file in ("audio/00/100.2min.mp3", "audio/01/201.mp3", "audio/02/302.2min.mp3"):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).touch()
    (place / table).write_text(HEADER + rows)
    return place


def test_captions_of_a_track_stand_side_by_side_in_the_test_split(tmp_path: Path) -> None:
    rows = (
        '7,100,"calm, slow",True,1,a,b,00/100.mp3,200\n8,201,loud,False,0,a,b,01/201.mp3,99\n'
        "9,100,a piano,True,1,a,b,00/100.mp3,200\n10,100,a piano,True,1,a,b,00/100.mp3,200\n"
        "11,404,gone,True,1,a,b,04/404.mp3,1\n"
    )
    (tmp_path / "scores.csv").write_text("track_id,reward_score\ntrack_0000100,0.5\n")
    listing = list_song_describer(write(tmp_path, rows), rewards=tmp_path / "scores.csv")
    found = {entry.id: entry for entry in listing.entries}
    assert len(found) == 4
    assert [id for id in found if id.startswith("100")] == ["100-7", "100-9"]
    assert abs(list(found).index("100-7") - list(found).index("100-9")) == 1
    assert found["100-7"].path == tmp_path / "audio/00/100.2min.mp3" and found["100-7"].caption == "calm, slow"
    assert found["201-8"].path == tmp_path / "audio/01/201.mp3" and found["100-9"].reward == 0.5
    assert {entry.split for entry in listing.entries} == {"test"}
    starts = ["1 captions are repeated an", "1 audio files have no capt", "2 captions have no score a"]
    assert [note[:26] for note in listing.notes] == starts


def test_the_folder_of_the_audio_with_a_table_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, "7,302,x,True,1,a,b,02/302.mp3,5\n", "table.csv")
    (entry,) = list_song_describer(tmp_path / "audio", tmp_path / "table.csv").entries
    assert entry.path == tmp_path / "audio/02/302.2min.mp3"
    with pytest.raises(CorpusError, match=r"song_describer\.csv does not exist"):
        list_song_describer(tmp_path)
    (tmp_path / "table.csv").write_text("track_id,caption\n1,x\n")
    with pytest.raises(CorpusError, match="no column 'path'"):
        list_song_describer(tmp_path, tmp_path / "table.csv")

"""Scores of tracks, joined to clips by id, file name or the number at their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.corpus.layouts import FolderCorpus, list_folder, list_jamendo, list_song_describer
from plaudit.corpus.manifest import Entry
from plaudit.corpus.track_tables import LicenceTable, ScoreTable, short_licence
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


RELEASED = {
    "jamendo_00_1002000": 2.215,
    "jamendo_89_5089": 0.25,
    "sdd_5089.2min": -0.663,
    "openmic_134087_103680": -0.795,
    "openmic_134149_0": -1.238,
    "musiccaps_-0Gj8-vB1q4.wav": -1.239,
    "musiccaps_YB_PzRgHOeo.wav": 0.178,
    "jamendo_14_999914": 9.0,
    "openmic_000046_3840": 8.0,
}
"""Ids as the released tables have them; the last two are of no clip."""


def released(folder: Path) -> Path:
    rows = "".join(f"{id},{score}\n" for id, score in RELEASED.items())
    return table(folder, "track_id,reward_score\n" + rows)


@pytest.mark.parametrize(
    ("file", "id"),
    [
        ("00/1002000.mp3", "jamendo_00_1002000"),
        ("00/1002000_instrumental.mp3", "jamendo_00_1002000"),
        ("audio-low/00/1002000.low.mp3", "jamendo_00_1002000"),
        ("89/5089.mp3", "jamendo_89_5089"),
        ("audio/89/5089.2min.mp3", "sdd_5089.2min"),
        ("audio/134/134087_103680.ogg", "openmic_134087_103680"),
        ("134149_0.ogg", "openmic_134149_0"),
        ("-0Gj8-vB1q4.wav", "musiccaps_-0Gj8-vB1q4.wav"),
        ("clips/YB_PzRgHOeo.flac", "musiccaps_YB_PzRgHOeo.wav"),
        ("3840.ogg", None),  # the second number of OpenMIC names no track
        ("134/134087_999.ogg", None),
    ],
)
def test_files_are_found_in_released_tables_by_every_naming(tmp_path: Path, file: str, id: str | None) -> None:
    expected = None if id is None else RELEASED[id]
    for name in (file.rpartition(".")[0], file):  # a folder corpus's ids are paths without or with their suffix
        assert ScoreTable(released(tmp_path)).score_of(entry(name, f"music/{file}")) == expected


def test_layouts_join_released_tables_and_say_what_does_not_match(tmp_path: Path) -> None:
    scores = released(tmp_path)
    files = ["00/1002000.mp3", "89/5089.2min.mp3", "134/134087_103680.ogg", "-0Gj8-vB1q4.wav", "YB_PzRgHOeo.wav"]
    files.append("x.wav")
    for file in files:
        (tmp_path / "music" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "music" / file).touch()
    (tmp_path / "clips.csv").write_text("file,caption\n" + "".join(f"{file},a caption\n" for file in files))
    listing = list_folder(tmp_path / "music", tmp_path / "clips.csv", score_table=scores)
    assert [e.reward for e in listing.entries] == [2.215, -0.663, -0.795, -1.239, 0.178, None]
    assert listing.notes == [
        "1 clips have no score and get no reward; the first: x",
        f"4 of 9 scores in {scores} are of no clip; the first: jamendo_89_5089, openmic_134149_0, jamendo_14_999914",
    ]
    jamendo = '[{"path": "00/1002000.mp3", "caption": "c"}, {"path": "89/5089.mp3", "caption": "d"}]'
    (tmp_path / "captions.json").write_text(jamendo)
    tracks = list_jamendo(tmp_path / "music", tmp_path / "captions.json", scores)
    assert {e.id: e.reward for e in tracks.entries} == {"00/1002000": 2.215, "89/5089": 0.25}
    (tmp_path / "music" / "song_describer.csv").write_text("caption_id,track_id,caption,path\n1,5089,c,89/5089.mp3\n")
    (song,) = list_song_describer(tmp_path / "music", rewards=scores).entries
    assert song.reward == -0.663  # of the two minutes, not of the whole track


def test_labels_may_be_in_another_column(tmp_path: Path) -> None:
    scores = table(tmp_path, "track_id,reward_score,instrumental_reward_score\njamendo_14_214,1,-2\n")
    (tmp_path / "captions.json").write_text('[{"path": "14/214.mp3", "caption": "c"}]')
    (tmp_path / "music").mkdir()
    for column, reward in (("reward_score", 1.0), ("instrumental_reward_score", -2.0)):
        listing = list_jamendo(tmp_path / "music", tmp_path / "captions.json", scores, reward_column=column)
        assert [e.reward for e in listing.entries] == [reward]
    with pytest.raises(CorpusError, match="has no column 'mine'; its columns are 'track_id', 'reward_score', 'instr"):
        list_jamendo(tmp_path / "music", tmp_path / "captions.json", scores, reward_column="mine")


AUDIO_LICENSES = """14/214.mp3
Song A by Artist from Jamendo: http://www.jamendo.com/track/214
Available under a Creative Commons Attribution license: http://creativecommons.org/licenses/by/3.0/

15/315.mp3
Song: B by Artist from Jamendo: http://www.jamendo.com/track/315
Available under a Creative Commons Attribution-NonCommercial-ShareAlike license: http://creativecommons.org/licenses/by-nc-sa/2.0/fr/

16/416.mp3
C by D from Jamendo: http://www.jamendo.com/track/416
Available under a Free Art license: http://artlibre.org/licence/lal/
"""


def test_licences_of_tracks(tmp_path: Path) -> None:
    (tmp_path / "audio_licenses.txt").write_text(AUDIO_LICENSES)
    (tmp_path / "licences.csv").write_text(
        "track_id,license\ntrack_0000214,CC BY 3.0\n15/315,https://creativecommons.org/licenses/by-nc-sa/2.0/fr\n"
    )
    published = LicenceTable(tmp_path / "audio_licenses.txt")
    assert [published.find([name]) for name in ("14/214", "315", "track_0000416", "9")] == [
        "CC-BY-3.0", "CC-BY-NC-SA-2.0-FR", "http://artlibre.org/licence/lal/", None,
    ]  # fmt: skip
    mine = LicenceTable(tmp_path / "licences.csv")
    assert mine.find(["14/214"]) == "CC BY 3.0" and mine.find(["315"]) == "CC-BY-NC-SA-2.0-FR"
    assert short_licence("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0-1.0"
    (tmp_path / "licences.csv").write_text("track_id,rights\n1,x\n")
    with pytest.raises(CorpusError, match=r"has no column 'licence', and is not MTG-Jamendo's audio_licenses\.txt"):
        LicenceTable(tmp_path / "licences.csv")

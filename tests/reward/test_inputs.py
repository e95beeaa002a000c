from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.audio import write_wav
from plaudit.errors import CorpusError, VoteError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.votes import (
    clip_files,
    extract_vote_features,
    load_training_votes,
    named_files,
    votes_with_audio,
    write_votes,
)
from plaudit.types import Vote
from tests.reward.taste import CLAP, MERT, votes, wave


def folder_of(path: Path, ids: list[str]) -> Path:
    for id in ids:
        samples, rate = wave(id)
        write_wav(path / f"{id}.wav", samples.numpy(), rate)
    return path


def test_clips_of_a_folder_are_called_by_their_paths_with_or_without_suffix(tmp_path: Path) -> None:
    folder_of(tmp_path / "deep", ["1"])
    files = clip_files(tmp_path)
    assert files == {"deep/1.wav": tmp_path / "deep" / "1.wav", "deep/1": tmp_path / "deep" / "1.wav"}
    (tmp_path / "deep" / "1.flac").touch()
    with pytest.raises(CorpusError, match=r"both called 'deep/1'; rename one"):
        clip_files(tmp_path)


def test_clips_of_a_table_are_called_by_their_id_or_path(tmp_path: Path) -> None:
    folder_of(tmp_path, ["1", "2"])
    table = tmp_path / "clips.csv"
    table.write_text("id,file\nfirst,1.wav\n,2.wav\ngone,3.wav\n")
    two = tmp_path / "2.wav"
    assert clip_files(table) == {"first": tmp_path / "1.wav", "2": two, "2.wav": two}
    table.write_text("file\n1.wav\n1.wav\n")
    with pytest.raises(CorpusError, match=r"line 3: id '1\.wav' appears twice"):
        clip_files(table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\n1.wav\n", "no column 'file'"),
        ("file\nnone.wav\n", "names no file that exists"),
        ("", "is empty; it needs a header line"),
        ("id,file\nx,\n", "line 2: column 'file' is empty"),
        ('file\n"1.wav\n', "line 2 is not CSV"),
    ],
)
def test_tables_that_name_nothing_say_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(CorpusError, match=said):
        clip_files(tmp_path / "clips.csv")


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no audio"):
        clip_files(tmp_path)
    with pytest.raises(CorpusError, match="does not exist"):
        clip_files(tmp_path / "none")


@given(st.sets(st.integers(0, 39)))
def test_votes_need_both_clips(there: set[int]) -> None:
    files = {str(n): Path(f"{n}.wav") for n in there}
    given_votes = votes(30, 0)
    kept = [vote for vote in given_votes if {vote.a, vote.b} <= files.keys()]
    if not kept:
        with pytest.raises(VoteError, match="none of 30 votes"):
            votes_with_audio([given_votes], files)
        return
    present = votes_with_audio([given_votes], files)
    assert present.parts == [kept] and present.left_out == 30 - len(kept)
    assert not set(present.missing) & files.keys()
    assert present.note.count("\n") == 0 and bool(present.note) == (len(kept) < 30)
    assert f"{len(present.missing)} clips are missing" in present.note or not present.missing


def test_missing_clips_are_noted_in_one_line_with_their_number(tmp_path: Path) -> None:
    files = {str(n): Path() for n in range(15)}
    note = votes_with_audio([votes(200, 0), votes(9, 1)], files).note
    assert note.startswith("25 clips are missing (") and " and 5 more); " in note and note.count(",") == 19


def test_votes_may_name_clips_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "work" / "music", ["1", "2"])
    absolute = str(folder / "2.wav")
    for where in (tmp_path, tmp_path / "work"):
        monkeypatch.chdir(where)
        files = named_files(folder, ["1", "music/1.wav", absolute, "music/3.wav", "work/music/1.wav"])
        assert files["music/1.wav"].resolve() == folder / "1.wav" and files[absolute] == folder / "2.wav"
        assert "music/3.wav" not in files and ("work/music/1.wav" in files) == (where == tmp_path)


def test_missing_clips_must_not_empty_a_part(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "audio", [str(n) for n in range(9)])
    output = [Vote(f"{n}", f"p{n}", f"{n % 12}", f"{(n * 5 + 1) % 12}", "a", "", "", "", "") for n in range(12)]
    write_votes(tmp_path / "votes.csv", output)
    features = load_training_votes([tmp_path / "votes.csv"], audio, RewardFeatures(CLAP, MERT), tmp_path / "features")
    kept = {vote.id for part in features.votes for vote in part}
    assert all(features.votes) and kept == {v.id for v in output if int(v.a) < 9 and int(v.b) < 9}
    assert features.notes[0].startswith("3 clips are missing (")


def test_every_clip_is_encoded_once_and_bad_audio_is_noted(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "audio", [str(n) for n in range(38)])
    (audio / "39.wav").write_bytes(b"")
    parts = [votes(60, 0), votes(60, 1)]
    encoders, folder = RewardFeatures(CLAP, MERT, ("audio",)), tmp_path / "features"
    features = extract_vote_features(parts, audio, encoders, folder)
    named = {clip for part in features.votes for vote in part for clip in (vote.a, vote.b)}
    assert len(features.store) == len(named) - 1 and features.store.features.blocks == (
        "clap_audio",
        "audio",
        "clap_text",
    )
    assert "1 clip is missing (38)" in features.notes[0] and "1 clips cannot be encoded" in features.notes[-1]
    shards = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    again = extract_vote_features(parts, audio, RewardFeatures(CLAP, MERT), folder)
    assert again.votes == features.votes
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == shards


def test_one_vote_file_is_split_and_three_are_used_unchanged(tmp_path: Path) -> None:
    audio, encoders = folder_of(tmp_path / "audio", [str(n) for n in range(40)]), RewardFeatures(CLAP, MERT)
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for number, file in enumerate(files):
        write_votes(file, votes(10 + number, number))
    features = load_training_votes(files, audio, encoders, tmp_path / "features")
    assert [len(part) for part in features.votes] == [10, 11, 12] and features.notes == []
    split = load_training_votes(files[:1], audio, encoders, tmp_path / "features")
    assert all(split.votes) and sum(map(len, split.votes)) == 10
    with pytest.raises(VoteError, match="2 files of votes; give one"):
        load_training_votes(files[:2], audio, encoders, tmp_path / "features")

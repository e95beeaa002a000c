"""Caption tables, good and bad."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.audio import audio_seconds, write_wav
from plaudit.corpus.layouts import FolderCorpus, list_folder
from plaudit.corpus.manifest import SPLITS, split_of
from plaudit.errors import AudioError, CorpusError

REAL = Path(os.environ.get("PLAUDIT_REAL_DIR", Path(__file__).parents[3] / "shared" / "real"))


def corpus(folder: Path, table: str | bytes, **columns: str) -> FolderCorpus:
    data = table.encode() if isinstance(table, str) else table
    (folder / "clips.csv").write_bytes(data)
    return FolderCorpus(folder, Path("clips.csv"), **columns)


def assert_refused(wrong: FolderCorpus, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason) as caught:
        wrong.entries()
    assert "\n" not in str(caught.value)


def test_a_table_with_everything(tmp_path: Path) -> None:
    wave = np.sin(np.arange(16000) / 10).astype(np.float32)
    write_wav(tmp_path / "audio" / "one.wav", wave, 16000)
    found = corpus(
        tmp_path,
        "path,text,score,extra\r\n"
        'audio/one.wav,"slow piano, in the\r\nrain",0.5,x\r\n\r\naudio/two.wav,Größe 大,,y\r\n',
        file_column="path",
        caption_column="text",
        reward_column="score",
    )
    one, two = found.entries()
    assert (one.id, one.caption, one.reward) == ("audio/one", "slow piano, in the\r\nrain", 0.5)
    assert (two.id, two.caption, two.reward) == ("audio/two", "Größe 大", None)
    assert one.source == tmp_path.name and one.split in SPLITS
    (loaded, later), rate = found.load([one, replace(one, start=0.9)], 0.5)
    assert rate == 16000 and np.abs(loaded - wave[:8000]).max() < 1e-4
    assert np.abs(later - wave[14400:]).max() < 1e-4
    with pytest.raises(AudioError, match="does not exist"):  # no error of the table
        found.load([two], 1.0)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert corpus(tmp_path, "file,caption\na.wav,x\n".encode("utf-8-sig")).entries()[0].id == "a"


def test_files_lie_beside_the_table_or_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "beside.wav").touch()
    table = tmp_path / "tables" / "t.csv"
    table.write_text(f"file,caption\nbeside.wav,x\nelsewhere.wav,y\n{tmp_path}/absolute.wav,z\n")
    paths = [entry.path for entry in FolderCorpus(tmp_path, table).entries()]
    assert paths == [tmp_path / "tables" / "beside.wav", tmp_path / "elsewhere.wav", tmp_path / "absolute.wav"]


def test_ids_from_a_column(tmp_path: Path) -> None:
    found = corpus(tmp_path, "file,caption,key\na.wav,x,k1\na.wav,y,k2\n", id_column="key").entries()
    assert [entry.id for entry in found] == ["k1", "k2"]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("", "is empty"),
        ("file,caption\n", "has no rows"),
        ("name,words\na.wav,x\n", "no column 'file', 'caption'; its columns are 'name', 'words'"),
        ("file|caption\na.wav|x\n", "no column 'file', 'caption'"),
        ("file,caption,caption\na.wav,x,y\n", "more than once"),
        ("file,caption\na.wav,x\nb.wav,y\na.flac,z\n", "'a' stands on lines 2 and 4"),
        ("file,caption\na.wav,slow, sad\n", "line 2: 3 values for 2 columns; quote"),
        ("file,caption\na.wav\n", "line 2: 1 values for 2 columns"),
        ("file,caption\n,x\n", "line 2: column 'file' is empty"),
        ('file,caption\na.wav,"x"y\n', "line 2 is not CSV"),
        ('file,caption\na.wav,"never closed\n', "is not CSV"),
        ("file,caption\na.wav,Größe\n".encode("latin-1"), "not UTF-8 text .line 2."),
        ("file,caption\na.wav,x\n".encode("utf-16"), "not UTF-8"),
        ("file,caption\na.wav,x\n".encode("utf-16-le"), "UTF-8"),
        (b"file,caption\na.wav,\xed\xa0\x80\n", "not UTF-8"),
    ],
)
def test_malformed_tables(tmp_path: Path, table: str | bytes, reason: str) -> None:
    assert_refused(corpus(tmp_path, table), reason)


@pytest.mark.parametrize("reward", ["high", "nan", "inf", "1,5"])
def test_rewards_are_numbers(tmp_path: Path, reward: str) -> None:
    assert_refused(
        corpus(tmp_path, f'file,caption,r\na.wav,x,"{reward}"\n', reward_column="r"), "line 2: reward .* not a finite"
    )


def test_missing_table_folder_and_columns(tmp_path: Path) -> None:
    assert_refused(FolderCorpus(tmp_path, Path("none.csv")), "none.csv does not exist")
    assert_refused(FolderCorpus(tmp_path / "none", Path("none.csv")), "not a folder")
    assert_refused(corpus(tmp_path, "file,caption\na.wav,x\n", reward_column="score"), "no column 'score'")


@given(st.text())
@settings(max_examples=20, deadline=None)
def test_splits_are_stable(key: str) -> None:
    key = key.encode("utf-8", "ignore").decode()
    assert split_of(key) == split_of(key) and split_of(key) in SPLITS
    assert split_of(key, 0, 0) == "train" and split_of(key, 0, 1) == "test" and split_of(key, 1, 0) == "validation"


def test_split_shares_and_constancy() -> None:
    splits = [split_of(str(i), 0.1, 0.2) for i in range(5000)]
    assert abs(splits.count("validation") / 5000 - 0.1) < 0.015 and abs(splits.count("test") / 5000 - 0.2) < 0.02
    moved = {(split_of(str(i), 0.0, 0.2), s) for i, s in enumerate(splits)}
    assert ("train", "test") not in moved  # the validation share moves no test clip
    assert [split_of(name) for name in ("7", "13", "21")] == ["train"] * 3


def test_clips_of_one_caption_share_a_split(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,caption {i % 9}\n" for i in range(90))
    by_caption: dict[str, set[str]] = {}
    for entry in corpus(tmp_path, "file,caption\n" + rows).entries():
        by_caption.setdefault(entry.caption, set()).add(entry.split)
    assert len(by_caption) == 9 and all(len(splits) == 1 for splits in by_caption.values())


@pytest.mark.skipif(not REAL.is_dir(), reason="the 80 real clips are not here; set PLAUDIT_REAL_DIR")
def test_real_clips() -> None:
    found = FolderCorpus(REAL, Path("clips.csv"), reward_column="tunejury_reward")
    entries = found.entries()
    assert len(entries) == 80 and all(entry.reward is not None for entry in entries)
    (wave,), rate = found.load([entries[0]], 60.0)
    assert rate == 44100 and len(wave) == 441000


def test_a_name_that_no_system_takes_costs_its_row_only(tmp_path: Path) -> None:
    wave = np.sin(np.arange(16000) / 10).astype(np.float32)
    write_wav(tmp_path / unicodedata.normalize("NFD", "größe.wav"), wave, 16000)
    names = [unicodedata.normalize("NFC", "größe.wav"), "x" * 300 + ".wav", "é" * 300 + ".wav", "a/" * 3000 + "b.wav"]
    found = corpus(tmp_path, "file,caption\n" + "".join(f"{name},x\n" for name in names))
    good, *bad = found.entries()
    assert found.load([good], 1.0)[1] == 16000
    for entry in bad:
        with pytest.raises(AudioError, match="cannot be read"):
            found.load([entry], 1.0)
        with pytest.raises(AudioError, match="cannot be read"):
            audio_seconds(entry.path)
    assert list_folder(tmp_path, "clips.csv").notes == []

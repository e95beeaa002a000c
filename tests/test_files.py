"""Finding files: links of every kind, what systems leave behind, and names in two spellings."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.audio import list_audio_files
from plaudit.errors import AudioError
from plaudit.files import files_under, find_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_under(folder)]


def test_every_folder_counts_once_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.wav").touch()
    for place, target in (("a-link", "real"), ("one", "."), ("two", "."), ("real/up", "..")):
        (tmp_path / place).symlink_to(target)
    assert names(tmp_path) == ["real/a.wav"]


def test_folders_and_files_elsewhere_are_followed(tmp_path: Path) -> None:
    (tmp_path / "away" / "deep").mkdir(parents=True)
    (tmp_path / "away" / "deep" / "a.wav").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "album").symlink_to(tmp_path / "away")
    (tmp_path / "here" / "again").symlink_to(tmp_path / "away" / "deep")
    (tmp_path / "here" / "b.wav").symlink_to(tmp_path / "away" / "deep" / "a.wav")
    assert names(tmp_path / "here") == ["again/a.wav", "b.wav"]
    assert names(tmp_path / "here" / "album") == ["deep/a.wav"]


def test_broken_links_are_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "round.wav").symlink_to("round.wav")
    assert names(tmp_path) == ["gone.wav", "round.wav"]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    left = ["._a.wav", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.wav", ".Trash/a.wav", ".git/b.wav"]
    left += ["@eaDir/a.wav/SYNOAUDIO_01.wav", "__MACOSX/._a.wav", "$RECYCLE.BIN/x.wav", "#recycle/y.wav"]
    for name in [*left, "a.wav", "not hidden/b.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.wav", "not hidden/b.wav"]
    assert names(tmp_path / ".Trash") == ["a.wav"]  # who names it means it
    assert list_audio_files([tmp_path / "._a.wav"]) == [tmp_path / "._a.wav"]


def test_what_is_no_folder_or_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for wrong in ("nowhere", "file"):
        with pytest.raises(AudioError, match="is not a folder"):
            files_under(tmp_path / wrong)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.wav").touch()
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(place: Path) -> object:
        if Path(place).name == "closed":
            raise PermissionError(13, "no")
        return scan(place)

    monkeypatch.setattr("os.scandir", refusing)
    assert names(tmp_path) == ["file", "open/a.wav"]
    with pytest.raises(AudioError, match="may not be read"):
        files_under(tmp_path / "closed")


LETTERS = st.text("aéüñ가が Å", min_size=1, max_size=6).filter(lambda name: name.strip() == name)
FORM = st.sampled_from(["NFC", "NFD"])


@settings(max_examples=60, deadline=None)
@given(st.lists(LETTERS, min_size=1, max_size=3), st.lists(FORM, min_size=3), st.lists(FORM, min_size=3))
def test_a_name_is_found_in_either_spelling(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], on_disk: list[str], in_table: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    path = folder.joinpath(*(unicodedata.normalize(f, part) for f, part in zip(on_disk, parts, strict=False)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    spelled = "/".join(unicodedata.normalize(f, part) for f, part in zip(in_table, parts, strict=False))
    for name in (spelled, str(folder / spelled)):
        located = find_file(name, folder / "nowhere", folder)
        assert located is not None and located.samefile(path)


def test_names_that_no_system_takes_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "file").touch()
    for name in ("x" * 300, "é" * 300, "a\0b", "é\0b", "round", "round/é", "file/é", "x" * 5000, "é/../../é", "\udce9"):
        assert find_file(name, tmp_path) is None
    assert find_file("file", tmp_path) == tmp_path / "file"


def test_a_file_that_came_later_is_found(tmp_path: Path) -> None:
    assert find_file("é.wav", tmp_path) is None
    (tmp_path / unicodedata.normalize("NFD", "é.wav")).touch()
    os.utime(tmp_path, ns=(1, 1))
    assert find_file("é.wav", tmp_path) is not None

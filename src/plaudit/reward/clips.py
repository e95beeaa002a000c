"""Where the clips that votes name lie: a folder of audio files, or a table of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plaudit.audio import audio_under, read_audio
from plaudit.corpus.table import table_rows
from plaudit.errors import CorpusError, VoteError, listed
from plaudit.files import find_file
from plaudit.types import Vote


def clip_files(source: Path) -> dict[str, Path]:
    """The file of each clip id.

    source: a folder, whose clips are called by their paths in it, with or without the suffix; or a CSV (UTF-8) with a
    column `file`, relative to the table, whose clips are called by a column `id` or, without one, like those of a
    folder. CorpusError in one line where it cannot be read, holds nothing, or two files have the same id.
    """
    files = _table_files(source) if source.is_file() else _folder_files(source)
    spellings = [(unicodedata.normalize(form, id), path) for form in ("NFC", "NFD") for id, path in files.items()]
    return {**dict(spellings), **files}


def named_files(source: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files of `clip_files`, and of those names that are paths of one of them.

    A path is absolute, or relative to the working folder or to the folder that `source` is in.
    """
    files = clip_files(source)
    known = {file.resolve() for file in files.values()}
    for name in names:
        if name not in files:
            for folder in (Path(), source.parent):
                place = find_file(name, folder)
                if place is not None and place.resolve() in known:
                    files[name] = place
    return files


def audio_loader(files: dict[str, Path]) -> Callable[[str], tuple[Tensor, int]]:
    """What FeatureStore.extract asks for a clip's waveform [T] and its rate."""

    def load(id: str) -> tuple[Tensor, int]:
        wave, rate = read_audio(files[id])
        return torch.from_numpy(wave), rate

    return load


@dataclass(frozen=True)
class PresentVotes:
    """Lists of votes both of whose clips are there, the ids of missing clips, and how many votes were left out."""

    parts: list[list[Vote]]
    missing: list[str]
    left_out: int

    @property
    def told(self) -> str:
        """One line about what is missing; empty where nothing is."""
        if not self.missing:
            return ""
        what = "1 clip is missing" if len(self.missing) == 1 else f"{len(self.missing)} clips are missing"
        votes = "1 vote that names" if self.left_out == 1 else f"{self.left_out} votes that name"
        is_out = "is" if self.left_out == 1 else "are"
        return f"{what} ({listed(self.missing)}); {votes} them {is_out} left out"


def present_votes(parts: Sequence[Sequence[Vote]], files: dict[str, Path]) -> PresentVotes:
    """Leave out the votes that name a clip which is not among `files`; VoteError where a part has none left."""
    everything = [vote for votes in parts for vote in votes]
    missing = list(dict.fromkeys(clip for vote in everything for clip in (vote.a, vote.b) if clip not in files))
    kept = [[vote for vote in votes if vote.a in files and vote.b in files] for votes in parts]
    for votes, left in zip(parts, kept, strict=True):
        if not left:
            first_names = {file: name for name, file in reversed(files.items())}
            there = listed([first_names[file] for file in dict.fromkeys(files.values())], 3)
            raise VoteError(
                f"none of {len(votes)} votes names two clips of the audio, which are called {there}; missing are "
                f"{listed(missing)}"
            )
    return PresentVotes(kept, missing, len(everything) - sum(map(len, kept)))


def _folder_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise CorpusError(f"{folder} does not exist; give a folder of audio or a CSV with a column file")
    paths = audio_under(folder)
    if not paths:
        raise CorpusError(f"{folder} holds no audio; put audio files (wav, flac, mp3, ogg, ...) there")
    files: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder)
        for id in (name.as_posix(), name.with_suffix("").as_posix()):
            if id in files:
                raise CorpusError(f"{folder} has {files[id].name} and {name}, both called {id!r}; rename one of them")
            files[id] = path
    return files


def _table_files(table: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for line, row in table_rows(table, ["file"]):
        file = row["file"].strip()
        if not file:
            raise CorpusError(f"{table} line {line}: column 'file' is empty; name the audio file")
        own = row.get("id", "").strip()
        for id in (own,) if own else (Path(file).as_posix(), Path(file).with_suffix("").as_posix()):
            if id in files:
                raise CorpusError(f"{table} line {line}: id {id!r} appears twice; give each clip one line")
            if (path := find_file(file, table.parent)) is not None:
                files[id] = path
    if not files:
        raise CorpusError(f"{table} names no file that exists; paths are relative to the table")
    return files

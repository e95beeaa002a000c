"""The interface of a corpus: a list of entries with captions and splits, and a way to load their audio."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from plaudit.audio import read_stretches
from plaudit.errors import CorpusError
from plaudit.storage import seed_of, to_json, write_atomically

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One clip of a corpus.

    `reward` is None without a score, `path` for a clip that is not in a file; then `origin` changes whenever its audio
    does. `start`: where in the recording the clip begins, in seconds. `problem`: why it can't be used, as far as that
    is clear before its audio is loaded; such clips go to quarantine. `peak`: the recording as a whole is scaled to it;
    None leaves it as it is. `licence`: of the recording, "" where it is not known.
    """

    id: str
    caption: str
    split: str
    source: str
    reward: float | None = None
    path: Path | None = None
    origin: str = ""
    start: float = 0.0
    problem: str = ""
    peak: float | None = None
    licence: str = ""


class Corpus(Protocol):
    """Clips with captions and perhaps rewards. The order of the entries is the same every time."""

    @property
    def name(self) -> str:
        """Its name in indices and reports."""

    def entries(self) -> list[Entry]:
        """Every clip, whether its audio can be loaded or not; ids are unique."""

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """At most `seconds` of each clip, from its start on: (mono float32 [T] of each, rate in Hz).

        The clips are of one recording, that is, one path. A clip that starts beyond its end is empty; AudioError where
        the recording cannot be used. Called from several threads.
        """


@dataclass(frozen=True)
class ListedCorpus:
    """A corpus of audio files from a list of entries."""

    name: str
    listed: list[Entry]

    def entries(self) -> list[Entry]:
        """As listed."""
        return self.listed

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """The clips' stretches of their file."""
        return load_clips(clips, seconds)


def load_clips(clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
    """At most `seconds` of each clip of one file: (mono float32 [T] of each, rate in Hz).

    AudioError where the file cannot be used.
    """
    path = clips[0].path
    if path is None:
        raise CorpusError(f"entry {clips[0].id!r} has no file; load it from the corpus it belongs to")
    return read_stretches(path, [(clip.start, seconds) for clip in clips], clips[0].peak)


def write_manifest(path: Path, entries: Sequence[Entry], audio: Mapping[Path, list[Any]] | None = None) -> None:
    """Write entries as JSON lines, atomically. audio: size, time of change and digest of each file."""
    rows = [
        {
            **asdict(entry),
            "path": None if entry.path is None else str(entry.path),
            "audio": None if entry.path is None or audio is None else audio[entry.path],
        }
        for entry in entries
    ]
    write_atomically(path, "".join(to_json(row, ascii=True) + "\n" for row in rows))


def read_manifest(path: Path) -> list[Entry]:
    """Read what `write_manifest` wrote; CorpusError where the file is missing or damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [_entry(**row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorpusError(f"{path} is not a manifest ({error}); delete its folder and run again") from None


def _entry(path: str | None, audio: object = None, **values: Any) -> Entry:
    return Entry(path=None if path is None else Path(path), **values)


def recordings(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs of entries of the same file, which is decoded once for all of them."""
    numbered = enumerate(entries)
    runs = itertools.groupby(numbered, key=lambda item: (item[1].path, item[1].path is None and item[0]))
    return [[entry for _, entry in run] for _, run in runs]


def split_of(key: str, validation: float = 0.05, test: float = 0.05) -> str:
    """The split of a clip from a hash of its key, so that it never moves when the corpus grows or shrinks.

    `validation` and `test` are expected fractions; in a small corpus the actual ones scatter around them.
    """
    place = seed_of(key) / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"

"""What a corpus is: a list of entries (who, what caption, which split) and a way to load each one's sound."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from plaudit.audio import read_audio
from plaudit.errors import CorpusError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One clip of a corpus.

    `reward` is None where nobody has scored it, `path` where it is not a file. `origin` stands in for the file then:
    it changes whenever the sound does. `start` is where in the recording the clip begins, in seconds. `problem` says
    why it can't be used where that is known before its sound is loaded; it goes to quarantine.
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


class Corpus(Protocol):
    """Where (audio, caption, reward) come from. The order of the entries is the same every time."""

    @property
    def name(self) -> str:
        """What the corpus is called in indices and reports."""

    def entries(self) -> list[Entry]:
        """Every clip, whether its sound can be loaded or not; ids are unique."""

    def load(self, entry: Entry) -> tuple[np.ndarray, int]:
        """The recording that the clip is in: (mono float32 [T], rate in Hz); AudioError where it cannot be used.

        Entries of one path share a recording. Threads load several at a time.
        """


@dataclass(frozen=True)
class ListedCorpus:
    """Audio files that somebody has listed."""

    name: str
    listed: list[Entry]

    def entries(self) -> list[Entry]:
        """As listed."""
        return self.listed

    def load(self, entry: Entry) -> tuple[np.ndarray, int]:
        """(mono float32 [T], rate in Hz) of the entry's file."""
        return load_file(entry)


def load_file(entry: Entry) -> tuple[np.ndarray, int]:
    """(mono float32 [T], rate in Hz) of an entry's file; AudioError where it cannot be used."""
    if entry.path is None:
        raise CorpusError(f"entry {entry.id!r} has no file; load it from the corpus that it is of")
    return read_audio(entry.path)


def split_of(key: str, validation: float = 0.05, test: float = 0.05) -> str:
    """The split of a clip from a hash of its key, so that it never moves when the corpus grows or shrinks.

    `validation` and `test` are the shares wanted; in a small corpus the actual shares scatter around them.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"

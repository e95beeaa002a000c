"""What a data set on disk holds: its recordings with their captions, and what is worth telling about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plaudit.audio import audio_under
from plaudit.corpus.folder import FolderCorpus
from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError


@dataclass(frozen=True)
class Listing:
    """Whole recordings, one entry for each with a caption, and lines for the user about what is left out or lacking."""

    name: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)


def list_folder(corpus: FolderCorpus) -> Listing:
    """The files that a folder's table names; CorpusError in one line where the table is malformed."""
    entries = corpus.entries()
    return Listing(corpus.name, entries, uncaptioned(files_under(corpus.folder), entries))


def files_under(folder: Path) -> list[Path]:
    """Audio files anywhere under a folder, sorted; CorpusError where it is no folder."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder; check the path")
    return audio_under(folder)


def uncaptioned(files: Sequence[Path], entries: Sequence[Entry]) -> list[str]:
    """A line about the files that no entry names, or none."""
    named = {os.path.normpath(entry.path) for entry in entries if entry.path is not None}
    silent = [file for file in files if os.path.normpath(file) not in named]
    return counted("audio files have no caption and are left out", silent)


def counted(what: str, examples: Sequence[object]) -> list[str]:
    """A line about several things alike, with the first of them; no line where there are none."""
    return [f"{len(examples)} {what}; the first: {examples[0]}"] if examples else []

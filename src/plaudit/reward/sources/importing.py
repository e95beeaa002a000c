"""Votes of a source as files: one per split, and `clips.csv`, which says where the audio of each clip is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet

from plaudit.audio import SUFFIXES, read_audio, write_wav
from plaudit.errors import AudioError, VoteError, is_no_room
from plaudit.files import path_in
from plaudit.reporting import Progress
from plaudit.reward.sources.layout import SourceClip
from plaudit.storage import read_json, write_atomically
from plaudit.tables import write_table
from plaudit.types import Vote

_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def split_by_ids(votes: Sequence[Vote], path: Path) -> tuple[dict[str, list[Vote]], int]:
    """Votes by a published split, a JSON object with ids under train, valid (or validation, val) and test.

    Returns the votes of each part in the split's order, and how many of its ids are not among the votes. VoteError
    where a part is missing, an id is in two, or a part comes out empty.
    """
    stored = read_json(path)
    by_id = {vote.id: vote for vote in votes}
    parts: dict[str, list[Vote]] = {}
    seen: set[str] = set()
    absent = 0
    for part, names in _PARTS.items():
        ids = next((stored[name] for name in names if name in stored), None) if isinstance(stored, dict) else None
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
            raise VoteError(f"{path} has no list of ids under {' or '.join(names)!r}")
        if len(set(ids)) < len(ids) or seen & set(ids):
            raise VoteError(f"{path} names an id twice; a vote is in one part of a split")
        seen |= set(ids)
        parts[part] = [by_id[id] for id in ids if id in by_id]
        absent += len(ids) - len(parts[part])
        if not parts[part]:
            raise VoteError(f"{path}: none of the {len(ids)} ids under {part} is among these {len(votes)} votes")
    return parts, absent


def write_clips(
    clips: Mapping[str, SourceClip], folder: Path, audio: Path | None, progress: Progress = lambda done, total: None
) -> tuple[int, list[str]]:
    """Write `clips.csv` (id, file) into `folder`, files relative to it where they lie beneath it.

    audio: a folder to write clips to that are cells of Parquet files or excerpts, each once; without one they are left
    out. Returns how many clips the table names, and what was wrong with those whose audio cannot be used.
    """
    files = {id: clip.file for id, clip in clips.items() if clip.column is None and clip.begin is None}
    wrong: list[str] = []
    if audio is not None:
        inside = {id: clip for id, clip in clips.items() if id not in files}
        for done, (id, clip, cell) in enumerate(_cells(inside), start=1):
            try:
                files[id] = _write(id, clip, cell, audio)
            except AudioError as error:
                wrong.append(str(error))
            except OSError as error:  # an id that is no name for a file here
                if is_no_room(error):
                    raise
                wrong.append(f"{id[:80]}: {error.strerror}")
            progress(done, len(inside))
    write_table(folder / "clips.csv", ("id", "file"), [(id, path_in(folder, files[id])) for id in clips if id in files])
    return len(files), wrong


def _cells(clips: Mapping[str, SourceClip]) -> Iterator[tuple[str, SourceClip, Any]]:
    """(id, clip, {bytes, path}) of each clip; one row group of one file is in memory at a time."""
    by_file: dict[tuple[Path, str], list[tuple[int, str]]] = defaultdict(list)
    for id, clip in clips.items():
        assert clip.column is not None and clip.row is not None
        by_file[clip.file, clip.column].append((clip.row, id))
    for (path, column), rows in by_file.items():
        try:
            file = pyarrow.parquet.ParquetFile(path)
            first, waiting = 0, sorted(rows)
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = [(row, id) for row, id in waiting if first <= row < first + count]
                cells = file.read_row_group(group, columns=[column]).column(column) if here else None
                for row, id in here:
                    assert cells is not None
                    yield id, clips[id], cells[row - first].as_py()
                first += count
        except (pyarrow.ArrowException, OSError) as error:
            raise VoteError(f"{path} is damaged ({str(error).splitlines()[0]}); download it again") from None


def _write(id: str, clip: SourceClip, cell: Any, audio: Path) -> Path:
    if not cell or not cell.get("bytes"):
        raise AudioError(f"{clip.file} row {clip.row}: no audio for {id}")
    if PurePosixPath(id).name != id or "\\" in id or id.startswith("."):
        raise VoteError(f"{clip.file} row {clip.row}: {id!r} cannot be a file name")
    suffix = PurePosixPath(cell.get("path") or "").suffix.lower()
    path = audio / f"{id}{suffix if suffix in SUFFIXES else '.wav'}"
    if clip.begin is None:
        if not path.is_file():
            write_atomically(path, cell["bytes"])
        return path
    excerpt = audio / f"{id}.wav"
    if not excerpt.is_file():
        whole = audio / f".{id}{path.suffix}"
        write_atomically(whole, cell["bytes"])
        try:
            wave, rate = read_audio(whole)
            cut = wave[round(clip.begin * rate) : None if clip.end is None else round(clip.end * rate)]
            if not len(cut):
                raise AudioError(f"{id} ends before the {clip.begin:g} s at which the excerpt begins")
            write_wav(excerpt, cut, rate)
        finally:
            whole.unlink(missing_ok=True)
    return excerpt

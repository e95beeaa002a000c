"""The book-keeping of a shard set folder: which files are finished, from what they were made, and their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from plaudit.assets import save_tensors, write_atomically, write_json
from plaudit.errors import CorpusError, is_no_room

LEDGER, INDEX, STATS, QUARANTINE = "shards.json", "index.parquet", "stats.json", "quarantine.jsonl"

Facts = dict[str, Any]
"""What the ledger knows of one file: bytes, sha256, and for shards the key of what they were made from."""


def read_ledger(folder: Path) -> dict[str, Facts]:
    """What is finished in a shard set folder, by file name; empty where nothing is, or where it can't be told."""
    try:
        ledger = json.loads((folder / LEDGER).read_bytes())
        return {name: facts for name, facts in ledger.items() if {"bytes", "sha256"} <= facts.keys()}
    except (OSError, ValueError, AttributeError):
        return {}


def damage_of(path: Path, facts: Facts, checksum: bool = True) -> str | None:
    """What is wrong with a file that the ledger says is finished, or None."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != facts["bytes"]:
        return f"is damaged ({size} bytes instead of {facts['bytes']})"
    if checksum and _measured(path)["sha256"] != facts["sha256"]:
        return "is damaged (its checksum differs)"
    return None


class Ledger:
    """The writing side. Every file appears whole, and only then does the ledger vouch for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = read_ledger(folder)
        self._current: set[str] = set()
        # safetensors begins each file under a name of its own, .tmp and six characters.
        for pattern in (".*.partial", ".tmp??????", *(f".{name}.*" for name in (LEDGER, INDEX, STATS, QUARANTINE))):
            for leftover in folder.glob(pattern):
                leftover.unlink()  # of a process that was killed

    def finished(self, name: str, key: str) -> Facts | None:
        """The facts on a shard if it was made from the same `key` and is intact."""
        self._current.add(name)
        facts = self._files.get(name)
        if facts is None or facts.get("key") != key or damage_of(self.folder / name, facts):
            return None
        return facts

    def save_shard(self, name: str, tensors: dict[str, Tensor], facts: Facts) -> None:
        """Write a shard. The index goes first, since it would not fit the new shards."""
        with _one_line_errors(self.folder / name):
            self._set({k: v for k, v in self._files.items() if k not in (INDEX, STATS, QUARANTINE)})
            save_tensors(self.folder / name, tensors)
            self._set(self._files | {name: facts | _measured(self.folder / name)})

    def save_file(self, name: str, data: bytes | str) -> None:
        """Write one of the small files."""
        self._current.add(name)
        with _one_line_errors(self.folder / name):
            write_atomically(self.folder / name, data)
            self._set(self._files | {name: _measured(self.folder / name)})

    def forget_others(self) -> None:
        """Remove the shards that nobody asked about: those of an earlier, larger corpus."""
        with _one_line_errors(self.folder):
            kept = self._current | {INDEX, STATS, QUARANTINE}
            self._set({name: facts for name, facts in self._files.items() if name in kept})
            for path in self.folder.glob("*.safetensors"):
                if path.name not in kept:
                    path.unlink()

    def _set(self, files: dict[str, Facts]) -> None:
        if files != self._files:
            files = dict(sorted(files.items(), key=lambda item: _place(item[0])))
            write_json(self.folder / LEDGER, files)
            self._files = files


@contextmanager
def sole_writer(folder: Path) -> Iterator[Ledger]:
    """The folder's ledger, the folder created if need be; CorpusError while another process writes there."""
    with _one_line_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            with suppress(NotImplementedError):  # a file system without locks
                lock.acquire(timeout=0)
        except Timeout:
            raise CorpusError(f"{folder} is being written by another process; wait for it to end") from None
    try:
        yield Ledger(folder)
    finally:
        lock.release()


def _place(name: str) -> tuple[int, str]:
    """Latents, then captions, then the rest as it came: the order in which shards were finished leaves no trace."""
    kind = name.partition("-")[0]
    return {"latents": (0, name), "captions": (1, name)}.get(kind, (2, ""))


def _measured(path: Path) -> Facts:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as a CorpusError of one line."""
    try:
        yield
    except OSError as error:
        kept = "free some space and run again, finished shards are kept"
        advice = kept if is_no_room(error) else "choose another folder"
        raise CorpusError(f"{path} cannot be written ({error.strerror}); {advice}") from None

"""Run folders: one folder a step, each with the fingerprint of what made it; resuming; one process at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from plaudit.assets import write_json
from plaudit.errors import RunError


def fingerprint(**parts: Any) -> str:
    """A hash of JSON-able parts: settings, inputs' fingerprints, and the step's code version."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Run:
    """A run folder. Open it with `opened`, which holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self, name: str, key: str, make: Callable[[Path], None], announce: Callable[[str, str], None]) -> Path:
        """Make `folder/name` by `make(path)` unless it was made from the same `key` before; return its path.

        A step that was killed is continued in its folder (each `make` must skip what it finds whole there); one made
        from another key is removed and made anew. announce(name, state) hears "done", "resumed" or "started".
        """
        state = self.begin(name, key)
        announce(name, state)
        started = time.monotonic()
        if state != "done":
            make(self.folder / name)
            self.finish(name, key, time.monotonic() - started)
        return self.folder / name

    def begin(self, name: str, key: str) -> str:
        """Make the folder of a step ready; "done" where it is whole, "resumed" where it was begun, else "started"."""
        path = self.folder / name
        begun, done = path / "step.json", path / "done.json"
        if self.is_done(name, key):
            return "done"
        if begun.exists() and _key(begun) == key and not done.exists():
            return "resumed"
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        write_json(begun, {"key": key})
        return "started"

    def is_done(self, name: str, key: str) -> bool:
        """Whether a step is whole, and made from `key`."""
        done = self.folder / name / "done.json"
        return done.exists() and _key(done) == key

    def finish(self, name: str, key: str, seconds: float) -> None:
        """Say that a step is whole."""
        write_json(self.folder / name / "done.json", {"key": key, "seconds": round(seconds, 2)})

    def seconds(self) -> dict[str, float]:
        """Seconds that the last process on each finished step took."""
        found = {p.parent.name: json.loads(p.read_bytes())["seconds"] for p in self.folder.glob("*/done.json")}
        return dict(sorted(found.items()))


def _key(path: Path) -> str | None:
    try:
        return json.loads(path.read_bytes())["key"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return None


@contextmanager
def opened(folder: Path) -> Iterator[Run]:
    """The run in `folder`, created if need be, locked against other processes until the block ends.

    Raises RunError where another process holds it or the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        with suppress(NotImplementedError):  # a file system without locks
            lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(folder)
        raise RunError(f"{folder} is in use by {holder}; wait for it, or give this run another --output") from None
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise RunError(f"cannot write to {folder} ({error.strerror}); choose another --output") from None
    (folder / ".pid").write_text(str(os.getpid()))
    try:
        yield Run(folder)
    finally:
        (folder / ".pid").unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return f"process {(folder / '.pid').read_text()}"
    except OSError:
        return "another process"

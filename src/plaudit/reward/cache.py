"""What was computed before: scores, by what was heard, what was asked for, and which reward judged."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from plaudit.assets import cache_home
from plaudit.errors import ModelError

PATIENCE = 30.0
"""Seconds that one process waits for another's write (ours); a write takes milliseconds."""


class ContentCache:
    """An SQLite file of values by key; any number of threads and processes may read and write it at once.

    It never stands in the way: where the file can't be used (no permission, full disk, damage), `complain` hears of it
    once, in one line, and from then on nothing is found and nothing is kept.
    """

    what = "values"
    """What is kept, which is the name of the table too; `column` is the name and the type of its values."""
    column = "value BLOB"

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._path, self._complain = path, complain
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = NORMAL")  # a value lost with the power is computed again
            with self._connection:
                columns = f"key BLOB PRIMARY KEY, {self.column} NOT NULL"
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {self.what} ({columns}) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @classmethod
    def of_user(cls, complain: Callable[[str], None]) -> Self | None:
        """The file in the user's cache folder; None, and `complain` hears why, where that is unknown."""
        try:
            return cls(cache_home() / cls.what / f"{cls.what}.sqlite", complain)
        except ModelError as error:
            complain(f"{cls.what} are not cached: {error}")
            return None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _found(self, key: bytes) -> Any:
        """The value kept under `key`, or None."""
        with self._lock:
            if self._connection is None:
                return None
            try:
                row = self._connection.execute(f"SELECT * FROM {self.what} WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
        return None if row is None else row[1]

    def _keep(self, values: Iterable[tuple[bytes, Any]]) -> None:
        """Keep values by key; what was kept survives a kill."""
        with self._lock:
            if self._connection is None:
                return
            try:
                with self._connection:
                    self._connection.executemany(f"INSERT OR REPLACE INTO {self.what} VALUES (?, ?)", values)
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        told = f"{self.what} are not cached: {self._path} cannot be used ({error}); free space, or delete the file"
        self._complain(told)


class ScoreCache(ContentCache):
    """Scores by `score_key`."""

    what, column = "scores", "score REAL"

    def get(self, key: bytes) -> float | None:
        """The score kept under `key`, or None."""
        found = self._found(key)
        return None if found is None else float(found)

    def put(self, scores: Iterable[tuple[bytes, float]]) -> None:
        """Keep scores by key; what was kept survives a kill."""
        self._keep(scores)


def score_key(path: Path, prompt: str, identity: str) -> bytes:
    """What a score depends on, as 32 bytes: the file's bytes, the prompt, and the reward's identity."""
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256(content)
    digest.update(hashlib.sha256(prompt.encode(errors="surrogatepass")).digest())
    digest.update(identity.encode())
    return digest.digest()

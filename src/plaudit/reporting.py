"""How work tells of its steps, notes and progress: the protocol, and reporters without a terminal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


class Reporter(Protocol):
    """Where a run or a call reports to."""

    def step(self, name: str, state: str) -> None:
        """A step is "started", "resumed" or found "done"."""

    def note(self, line: str) -> None:
        """Something about the data or the run that the user should know of."""

    def progress(self, label: str) -> AbstractContextManager[Progress]:
        """A bar for work that takes a while: with reporter.progress("encoding") as advance: advance(done, total)."""


class Silent:
    """Reports nothing."""

    def step(self, name: str, state: str) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show nothing."""
        yield lambda done, total: None


class WarningReporter(Silent):
    """Notes are warnings; nothing else is reported."""

    def note(self, line: str) -> None:
        """As a UserWarning."""
        warnings.warn(line, stacklevel=4)

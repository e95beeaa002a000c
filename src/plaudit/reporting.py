"""Reporting of steps, notes and progress: the protocol, and reporters without a terminal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""


def no_progress(done: int, total: int) -> None:
    """Ignored."""


class Reporter(Protocol):
    """Receives steps, notes and progress of a run or a call."""

    def step(self, name: str, state: str) -> None:
        """A step is "started", "resumed" or already "done"."""

    def note(self, line: str) -> None:
        """A note on the data or the run for the user."""

    def progress(self, label: str) -> AbstractContextManager[Progress]:
        """A bar for work that takes a while: with reporter.progress("encoding") as advance: advance(done, total)."""


class Silent:
    """Reports nothing."""

    def step(self, name: str, state: str) -> None:
        """Ignored."""

    def note(self, line: str) -> None:
        """Ignored."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Ignored."""
        yield lambda done, total: None


class WarningReporter(Silent):
    """Notes are warnings; nothing else is reported."""

    def note(self, line: str) -> None:
        """As a UserWarning."""
        warnings.warn(line, stacklevel=4)

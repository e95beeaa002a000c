"""Console output: progress on standard error; results on standard output as tables, CSV or JSON."""

from __future__ import annotations

import codecs
import io
import itertools
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from plaudit.files import path_in
from plaudit.tables import csv_text, write_table

if TYPE_CHECKING:
    from plaudit.pipeline.runner import Outlook


def literal_console(stderr: bool = False) -> Console:
    """A console that prints text literally: no markup in brackets, no emoji codes."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


progress_console = literal_console(stderr=True)
result_console = literal_console()

Yes = Annotated[bool, typer.Option("--yes", help="Replace results of other settings, code or data without asking.")]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the result as CSV to this file; - prints it.")]

FILE_COLUMNS = ("file", "copy")
"""Columns of tables that hold paths."""

LOSSLESS = "plaudit.lossless"
"""The name of the error handler of output streams."""

QUIET_EVERY = 30.0
"""Seconds between the lines that stand for a bar where standard error is not a terminal."""


_BURST = 0.1
"""Steps closer together than this share of the longest wait between steps came as one batch (ours)."""

_WINDOW = 10
"""Batches that the pace is taken over (ours): enough to even out, few enough to follow a change."""


_LEAST = 2.0
"""Seconds that work is watched for at least (ours): before that, what was done in an earlier run is passed over."""

_KEPT = 4096
"""Steps that are remembered."""


@dataclass(frozen=True)
class _Mark:
    """The time at which a number of steps was done."""

    end: float
    done: int


class TimeLeft:
    """Estimates the time left from the times at which steps are done; None until there are enough of them.

    Work starts slowly (models are loaded), comes in batches whose steps are all done at once, and often begins with
    steps that were done before. So the pace is that between whole batches, without the wait before the first; and it
    takes at least two of them, watched for as long as that wait was.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._marks: deque[_Mark] = deque(maxlen=_KEPT)
        self._restart()

    def update(self, done: int, total: int) -> None:
        """Record that `done` of `total` steps are done; a lower count than before starts a new estimate."""
        if self._marks and done < self._marks[-1].done:
            self._restart()
        self._total = total
        if done > (self._marks[-1].done if self._marks else 0):
            self._marks.append(_Mark(self._clock(), done))
            self._first = self._marks[-1].end if self._first is None else self._first

    def seconds(self) -> float | None:
        """Seconds left; None where there is no basis for an estimate."""
        ends = self._batch_ends()[-_WINDOW:]
        if len(ends) < 2 or self._first is None:
            return None
        if self._marks[-1].end - self._first < max(_LEAST, self._first - self._began):
            return None
        waited = self._clock() - ends[-1].end
        if waited > 3 * max(after.end - before.end for before, after in itertools.pairwise(ends)):
            return None  # the pace has changed, to an unknown one
        pace = (ends[-1].end - ends[0].end) / (ends[-1].done - ends[0].done)
        return max(0.0, pace * (self._total - ends[-1].done) - waited)

    def _restart(self) -> None:
        self._began, self._total, self._first = self._clock(), 0, None
        self._marks.clear()

    def _batch_ends(self) -> list[_Mark]:
        """The last steps of batches that are done; the latest counts where it is as large as the one before."""
        pairs = list(itertools.pairwise(self._marks))
        longest = max((after.end - before.end for before, after in pairs), default=0.0)
        ends = [before for before, after in pairs if after.end - before.end > _BURST * longest]
        if not ends:
            return []
        size = ends[-1].done - (ends[-2].done if len(ends) > 1 else 0)
        return [*ends, self._marks[-1]] if self._marks[-1].done - ends[-1].done >= size else ends


def as_text(seconds: float) -> str:
    """A duration in a suitable unit: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def approval(yes: bool) -> Callable[[Sequence[Outlook]], bool]:
    """Approves replacing steps: with `--yes`, or by a question at a terminal; otherwise never."""
    return lambda lost: agreed(yes, [f"{one.step}: {', '.join(one.reasons)}" for one in lost])


def agreed(yes: bool, lost: Sequence[str]) -> bool:
    """Whether earlier results may be replaced; they are listed first, with the reasons."""
    asks = sys.stdin is not None and sys.stdin.isatty() and progress_console.is_terminal
    if yes or asks:
        complain("Made with other settings, code or data, this would be replaced:")
        for line in lost:
            complain(f"  {line}")
    return yes or (asks and typer.confirm("Replace it?", err=True))


class ConsoleReporter:
    """Prints a run's steps, and a progress bar with the time left for longer work."""

    def step(self, name: str, state: str) -> None:
        """One line per step."""
        colour = {"done": "dim", "shared": "dim", "resumed": "yellow"}.get(state, "bold")
        progress_console.print(f"{name}: {state}", style=colour)

    def note(self, line: str) -> None:
        """An indented line."""
        progress_console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A bar on a terminal, an occasional line elsewhere."""
        if progress_console.is_terminal:
            left = TimeLeft()
            with _bar(left) as bar:
                task = bar.add_task(label, total=None)

                def advance(done: int, total: int) -> None:
                    left.update(done, total)
                    bar.update(task, completed=done, total=total)

                yield advance
        else:
            yield _lines(label)


class CommandReporter(ConsoleReporter):
    """As ConsoleReporter, for a command without steps: its notes are not indented."""

    def note(self, line: str) -> None:
        """A line that is not indented."""
        complain(line)


def lossless_streams() -> None:
    """Let standard output and error accept any text: names that are not UTF-8 get their bytes back, and characters that
    the encoding lacks are escaped. Standard input is UTF-8, with or without a mark."""
    codecs.register_error(LOSSLESS, _lossless)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LOSSLESS)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")


def _lossless(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):  # a stream that is read back gives the bytes as it took them
        return codecs.lookup_error("surrogateescape")(error)
    encoded = b""
    for letter in error.object[error.start : error.end]:
        code = ord(letter)
        escaped = 0xDC80 <= code <= 0xDCFF  # a byte of a name that is not UTF-8
        encoded += bytes([code - 0xDC00]) if escaped else letter.encode("ascii", "backslashreplace")
    return encoded, error.end


class _TimeLeftColumn(ProgressColumn):
    """The time left, empty as long as there is no basis for an estimate."""

    def __init__(self, left: TimeLeft) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        """As `about 12 min left`."""
        seconds = self._left.seconds()
        return Text("" if seconds is None else f"about {as_text(seconds)} left", style="progress.remaining")


def _bar(left: TimeLeft) -> Progress:
    columns = (TextColumn("  {task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Results that go to a file or a pipe must not be taken up into the bar's terminal.
    return Progress(
        *columns,
        _TimeLeftColumn(left),
        console=progress_console,
        transient=True,
        redirect_stdout=result_console.is_terminal,
    )


def _lines(label: str) -> Callable[[int, int], None]:
    printed = time.monotonic()
    left = TimeLeft()

    def advance(done: int, total: int) -> None:
        nonlocal printed
        left.update(done, total)
        now = time.monotonic()
        if done and now - printed >= QUIET_EVERY:
            printed, seconds = now, left.seconds()
            estimate = "" if seconds is None else f", about {as_text(seconds)} left"
            progress_console.print(f"  {label}: {done}/{total}{estimate}", highlight=False, markup=False)

    return advance


def complain(line: str) -> None:
    """A note or warning on standard error."""
    progress_console.print(line, highlight=False, soft_wrap=True, markup=False)


def say(line: str) -> None:
    """A line of results on standard output."""
    result_console.print(line, soft_wrap=True, highlight=False, markup=False)


def as_invoked(command: str) -> str:
    """A `plaudit` command line as it works in the shell that started this process."""
    program = Path(sys.argv[0])
    if program.name != "plaudit":
        return command.replace("plaudit", f"{shlex.quote(sys.executable)} -m plaudit", 1)
    on_path = shutil.which("plaudit")
    if on_path is not None and Path(on_path).resolve() == program.resolve():
        return command
    place, here = program.absolute(), Path.cwd()
    name = place.relative_to(here) if place.is_relative_to(here) else place
    return command.replace("plaudit", shlex.quote(str(name)), 1)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; numbers with three decimals."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")  # a path that is cut short names no file
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    result_console.print(table)


def show_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV with a header line: to a file, whole or not at all, or to standard output where `path` is `-`.

    In a file the paths in FILE_COLUMNS are relative to its folder, or absolute.
    """
    if path != Path("-"):
        rows = [{**row, **{c: path_in(path.parent, row[c]) for c in FILE_COLUMNS if row.get(c)}} for row in rows]
    if path == Path("-"):
        print(csv_text(columns, rows), end="")
    else:
        write_table(path, columns, rows)


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    from plaudit.storage import to_json

    print(to_json(value, indent=2, ascii=True))

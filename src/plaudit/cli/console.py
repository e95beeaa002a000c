"""How commands talk: progress bars on standard error, results on standard output, tables or JSON."""

from __future__ import annotations

import codecs
import csv
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from plaudit.writing import write_atomically

# People's names and prompts are printed letter for letter: brackets are no markup, `:smile:` is no picture.
progress_console = Console(stderr=True, markup=False, emoji=False, highlight=False)
result_console = Console(markup=False, emoji=False, highlight=False)

EngineName = Annotated[str, typer.Option("--engine", help="local: this process. ray: many, here or on a cluster.")]
Address = Annotated[str | None, typer.Option("--ray-address", help="A Ray cluster's. Default: one is started here.")]

LOSSLESS = "plaudit.lossless"
"""The name of the error handler of output streams."""

QUIET_EVERY = 30.0
"""Seconds between the lines that stand for a bar where standard error is not a terminal."""


class ConsoleReporter:
    """Tells of a run's steps and shows a bar with the time left for each longer piece of work."""

    def step(self, name: str, state: str) -> None:
        """One line a step; steps found done say so and no more."""
        colour = {"done": "dim", "resumed": "yellow"}.get(state, "bold")
        progress_console.print(f"{name}: {state}", style=colour)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A bar on a terminal, an occasional line elsewhere."""
        if progress_console.is_terminal:
            with _bar() as bar:
                task = bar.add_task(label, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            yield _lines(label)


def lossless_streams() -> None:
    """Let standard output and error take any text: names that are not UTF-8 get their bytes back, and letters that the
    encoding lacks are escaped. Standard input is UTF-8, with or without a mark."""
    codecs.register_error(LOSSLESS, _lossless)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LOSSLESS)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")


def _lossless(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):  # a stream that is read back gives the bytes as it took them
        return codecs.lookup_error("surrogateescape")(error)
    found = b""
    for letter in error.object[error.start : error.end]:
        code = ord(letter)
        escaped = 0xDC80 <= code <= 0xDCFF  # a byte of a name that is not UTF-8
        found += bytes([code - 0xDC00]) if escaped else letter.encode("ascii", "backslashreplace")
    return found, error.end


def _bar() -> Progress:
    columns = (TextColumn("  {task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Results that go to a file or a pipe must not be taken up into the bar's terminal.
    return Progress(
        *columns,
        TextColumn("left"),
        TimeRemainingColumn(),
        console=progress_console,
        transient=True,
        redirect_stdout=result_console.is_terminal,
    )


def _lines(label: str) -> Callable[[int, int], None]:
    began = told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if done and now - told >= QUIET_EVERY:
            told = now
            left = (now - began) / done * (total - done)
            progress_console.print(f"  {label}: {done}/{total}, about {left:.0f} s left", highlight=False)

    return advance


def is_ray(engine: str) -> bool:
    """Whether the engine asked for is Ray; wrong usage where it is none."""
    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"--engine is local or ray, not {engine!r}")
    return engine == "ray"


def complain(line: str) -> None:
    """A line on standard error that a reader of results should know of."""
    progress_console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; numbers with three decimals."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")  # a path that is cut short names no file
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    result_console.print(table)


def show_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV with a header line: to a file, whole or not at all, or to standard output where `path` is `-`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path == Path("-"):
        print(text.getvalue(), end="")
    else:
        write_atomically(path, text.getvalue())


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    from plaudit.assets import to_json

    print(to_json(value, indent=2, ascii=True))

"""Tables that people bring: UTF-8, a header line, one clip a row, columns set apart by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from plaudit.errors import CorpusError

KNOWN = ("file", "prompt", "caption", "id", "system")
"""Columns that tables of this package have, wanted or not."""

SUFFIXES = (".csv", ".tsv", ".tab")
"""Of files that are tables by their names."""

DELIMITERS = ",;\t"
"""What separates the columns of tables: programs write semicolons where the comma is for decimals."""


def is_table(file: Path) -> bool:
    """Whether a file of prompts is a table: by its suffix, or by a header of tab-separated names."""
    if file.suffix.lower() in SUFFIXES:
        return True
    if not os.path.isfile(file):
        return False
    with file.open("rb") as open_run:
        header = open_run.readline(4096).decode("utf-8-sig", errors="replace")
    return "\t" in header and any(name.strip() in ("prompt", "caption") for name in header.split("\t"))


def table_rows(table: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, values by column) of each row; blank lines are skipped, and so are empty columns at the end.

    CorpusError in one line where the file is missing or malformed, or a `wanted` column is not there.
    """
    text = _decoded(table)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text, wanted), strict=True)
    try:
        header = _without_empty_end([name.strip() for name in next(reader, [])])
        _check_header(table, header, wanted)
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) < len(header) or any(value.strip() for value in values[len(header) :]):
                raise CorpusError(
                    f"{table} line {reader.line_num}: {len(values)} values for {len(header)} columns; "
                    "quote captions that contain commas"
                )
            yield reader.line_num, dict(zip(header, values, strict=False))
    except csv.Error as error:
        raise CorpusError(f"{table} line {reader.line_num} is not CSV ({error}); check its quotes") from None


def delimiter_of(text: str, wanted: Sequence[str]) -> str:
    """What separates the columns of a table: the delimiter that gives most of the wanted ones, then most at all."""

    def fits(delimiter: str) -> tuple[int, int]:
        try:
            names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])]
        except csv.Error:
            return 0, 0
        return len(set(names) & {*wanted, *KNOWN}), len(names)

    return max(DELIMITERS, key=fits)


def _without_empty_end(names: list[str]) -> list[str]:
    """Spreadsheets write columns that were once used, without names."""
    while names and not names[-1]:
        names = names[:-1]
    return names


def _check_header(table: Path, header: list[str], wanted: Sequence[str]) -> None:
    if not any(header):
        raise CorpusError(f"{table} is empty; it needs a header line and one row per clip")
    missing = [column for column in wanted if column not in header]
    if missing:
        raise CorpusError(f"{table} has no column {_listed(missing)}; its columns are {_listed(header)}")
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise CorpusError(f"{table} has column {_listed(doubled)} more than once; rename one of them")


def _decoded(table: Path) -> str:
    if not table.is_file():
        raise CorpusError(f"table {table} does not exist; check the path")
    data = table.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CorpusError(f"{table} is not UTF-8 (line {line}); save it as UTF-8") from None
    if "\0" in text:
        raise CorpusError(f"{table} holds zero bytes, so it is not a UTF-8 text; save it as UTF-8")
    return text


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)

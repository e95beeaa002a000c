"""Reading tables of clips and lists of prompts in the formats of spreadsheets, and writing CSV.

A table is UTF-8 with a header line, one record a row, its columns separated by commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import CorpusError, PlauditError, PromptError
from plaudit.writing import is_utf8, write_atomically

KNOWN = ("file", "prompt", "caption", "id", "system")
"""Columns of this package's tables, by which the delimiter is recognized."""

SUFFIXES = (".csv", ".tsv", ".tab")
DELIMITERS = ",;\t"
"""Programs write semicolons where the comma is the decimal mark."""


class Row(dict[str, str]):
    """The values of a row by column. line: of its end in the file; where: table and line, for messages."""

    def __init__(self, values: Mapping[str, str], table: Path, line: int, error: type[PlauditError]) -> None:
        super().__init__(values)
        self.line, self.where, self._table, self._error = line, f"{table} line {line}", table, error

    def filled(self, column: str, hint: str) -> str:
        """The value without spaces around it; an error that ends with `hint` where it is empty."""
        value = self[column].strip()
        if not value:
            raise self._error(f"{self.where}: column {column!r} is empty; {hint}")
        return value

    def prompt(self) -> str | None:
        """The value of the column prompt, or caption; None where there is neither, an error where there are both."""
        if "prompt" in self and "caption" in self:
            raise self._error(f"{self._table} has both columns 'prompt' and 'caption'; rename the one to be ignored")
        value = self.get("prompt", self.get("caption"))
        return None if value is None else value.strip()


@dataclass(frozen=True)
class Table:
    """A table in memory."""

    columns: list[str]
    rows: list[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def is_table(file: Path) -> bool:
    """Whether a file of prompts is a table: by its suffix, or by a header of tab-separated names."""
    if file.suffix.lower() in SUFFIXES:
        return True
    if not os.path.isfile(file):
        return False
    with file.open("rb") as stream:
        header = stream.readline(4096).decode("utf-8-sig", errors="replace")
    return "\t" in header and any(name.strip() in ("prompt", "caption") for name in header.split("\t"))


def read_table(path: Path, required: Sequence[str] = (), error: type[PlauditError] = CorpusError) -> Table:
    """The table in a file; blank lines are skipped, and so are nameless empty columns at the end.

    `error`, in one line, where the file is missing or malformed or lacks a `required` column.
    """
    text = read_text(path, error)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, required), strict=True)
    rows = []
    try:
        columns = [name.strip() for name in next(reader, [])]
        while columns and not columns[-1]:  # spreadsheets write columns that were once used, without names
            del columns[-1]
        if problem := _header_problem(columns, required):
            raise error(f"{path} {problem}")
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) < len(columns) or any(value.strip() for value in values[len(columns) :]):
                raise error(
                    f"{path} line {reader.line_num}: {len(values)} values for {len(columns)} columns; "
                    "quote captions that contain commas"
                )
            rows.append(Row(dict(zip(columns, values, strict=False)), path, reader.line_num, error))
    except csv.Error as problem:
        raise error(f"{path} line {reader.line_num} is not CSV ({problem}); check its quotes") from None
    return Table(columns, rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> None:
    """Write a CSV, whole or not at all."""
    write_atomically(path, csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> str:
    """CSV with a header line; a row is a mapping from columns or a sequence."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(name) for name in columns] if isinstance(row, Mapping) else row for row in rows)
    return buffer.getvalue()


def read_json_lines(path: Path, error: type[PlauditError] = CorpusError) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line of a file that is not blank; `error` where one is not JSON.

    Only a line feed ends a line: texts may hold U+2028 and the like, at which str.splitlines would cut.
    """
    for number, line in enumerate(read_text(path, error).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (json.JSONDecodeError, RecursionError) as problem:
                reason = problem.msg if isinstance(problem, json.JSONDecodeError) else "nested too deep"
                raise error(f"{path} line {number}: not valid JSON ({reason})") from None


def read_text(path: Path, error: type[PlauditError] = CorpusError) -> str:
    """A file's text, without a byte order mark; `error` where it is missing or is not UTF-8."""
    if not path.is_file():
        raise error(_no_file(path))
    return _decoded(path.read_bytes(), str(path), error)


def read_prompts(file: Path) -> list[str]:
    """The prompts of a file: one a line, the column prompt (or caption) of a table (`is_table`), or a JSON list of
    texts or of objects with a prompt (or caption).

    PromptError or CorpusError, in one line, where it cannot be read or a prompt is empty.
    """
    if not is_table(file):
        if not file.is_file():
            raise PromptError(_no_file(file))
        if file.suffix.lower() == ".json":
            return _prompts_in_json(file)
        return parse_prompts(file.read_bytes(), str(file))
    table = read_table(file)
    column = next((name for name in ("prompt", "caption") if name in table.columns), None)
    if column is None:
        raise CorpusError(f"{file} has no column 'prompt' or 'caption'; its columns are {', '.join(table.columns)}")
    return _checked([(row.line, row[column]) for row in table], str(file))


def _prompts_in_json(file: Path) -> list[str]:
    try:
        entries = json.loads(read_text(file, PromptError))
    except (json.JSONDecodeError, RecursionError) as problem:
        raise PromptError(f"{file} is not valid JSON ({problem}); check the file") from None
    prompts = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        text = entry.get("prompt", entry.get("caption")) if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            raise PromptError(f"{file}: entry {number} is neither a text nor an object with a prompt; correct it")
        prompts.append(checked_prompt(text, f"{file} entry {number}"))
    if not prompts:
        raise PromptError(f"{file} is no JSON list of prompts; see plaudit generate --help for other forms")
    return prompts


def parse_prompts(content: bytes, source: str) -> list[str]:
    """One prompt a line of UTF-8 text, blank lines left out; PromptError where there is none, or a line has tabs."""
    lines = enumerate(_decoded(content, source, PromptError, zeros=True).split("\n"), start=1)
    prompts = [(number, text) for number, text in lines if text.strip()]
    for number, text in prompts:
        if "\t" in text.strip():
            raise PromptError(
                f"{source} line {number} holds tabs; give a table as a file (--prompts) whose header line names a "
                "column 'prompt', or put spaces for the tabs"
            )
    return _checked(prompts, source)


def checked_prompt(prompt: str, source: str) -> str:
    """A prompt without spaces around it; PromptError where it is empty or no text."""
    prompt = prompt.strip()
    if not prompt:
        raise PromptError(f"{source}: the prompt is empty; say what the music should be like")
    check_text(prompt, f"{source}: the prompt")
    return prompt


def check_text(text: str, what: str) -> None:
    """PromptError where a text holds bytes that are not UTF-8, or zero bytes; the message begins with `what`."""
    if not is_utf8(text):
        raise PromptError(f"{what} is not UTF-8 text; set a UTF-8 locale, or give it in a file saved as UTF-8")
    if "\0" in text:
        raise PromptError(f"{what} holds zero bytes, so it is not UTF-8 text; save it as UTF-8")


def _checked(prompts: list[tuple[int, str]], source: str) -> list[str]:
    if not prompts:
        raise PromptError(f"{source} holds no prompts; give one a line")
    return [checked_prompt(prompt, f"{source} line {line}") for line, prompt in prompts]


def _decoded(data: bytes, source: str, error: type[PlauditError], zeros: bool = False) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise error(f"{source} is not UTF-8 text (line {line}); save it as UTF-8") from None
    if "\0" in text and not zeros:
        raise error(f"{source} holds zero bytes, so it is not UTF-8 text; save it as UTF-8")
    return text


def _no_file(path: Path) -> str:
    return f"{path} is a folder; give a file" if path.is_dir() else f"{path} does not exist; check the file name"


def _delimiter(text: str, required: Sequence[str]) -> str:
    """The delimiter that gives most of the required and known columns, then most columns at all."""

    def fits(delimiter: str) -> tuple[int, int]:
        try:
            names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])]
        except csv.Error:
            return 0, 0
        return len(set(names) & {*required, *KNOWN}), len(names)

    return max(DELIMITERS, key=fits)


def _header_problem(columns: list[str], required: Sequence[str]) -> str:
    if not any(columns):
        return "is empty; it needs a header line and one row per clip"
    if missing := [column for column in required if column not in columns]:
        return f"has no column {_listed(missing)}; its columns are {_listed(columns)}"
    if doubled := sorted({column for column in columns if columns.count(column) > 1}):
        return f"has column {_listed(doubled)} more than once; rename one of them"
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)

"""Shared by readers of published votes: the result, and rows of tables whose errors name file and column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from plaudit.errors import VoteError
from plaudit.tables import read_json_lines, read_table, read_text
from plaudit.types import Vote


@dataclass(frozen=True)
class SourceClip:
    """Where the audio of a clip is: a file, or one cell of a Parquet file, which is read on demand.

    file: the audio file, or the Parquet file. column, row: the cell, with the fields bytes and path; None for an audio
    file. begin, end: the seconds of it that listeners were played; None for all of it.
    """

    file: Path
    column: str | None = None
    row: int | None = None
    begin: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class SourceVotes:
    """Votes of one source, the clips they name whose audio is here, and how many records gave no vote, by reason."""

    votes: list[Vote]
    clips: dict[str, SourceClip]
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One record of a table, and its position for error messages."""

    where: str
    values: Mapping[str, Any]

    def text(self, column: str, default: str | None = None) -> str:
        """The value as text; `default` where it is absent or null. VoteError without one, or for another type."""
        value = self.values.get(column)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise VoteError(f"{self.where}: column {column!r} must be text, not {value!r}")
        return value

    def number(self, column: str) -> int:
        """The value as a whole number, which may be written as text."""
        value = self.values.get(column)
        try:
            if isinstance(value, (int, str)) and not isinstance(value, bool):
                return int(value)
        except ValueError:
            pass
        raise VoteError(f"{self.where}: column {column!r} must be a whole number, not {value!r}")


def need_folder(folder: Path) -> None:
    """VoteError where the folder does not exist."""
    if not folder.is_dir():
        raise VoteError(f"{folder} is not a folder; give the one that the data set was downloaded to")


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[Record]:
    """The records of a CSV in UTF-8; VoteError where it is none or lacks a column."""
    for row in read_table(path, required, VoteError):
        yield Record(row.where, row)


def json_rows(path: Path) -> Iterator[Record]:
    """The records of a JSON file (one object, or a list of them) or a `.jsonl` file; VoteError where it is neither."""
    if path.suffix == ".jsonl":
        records = ((f"{path} line {number}", record) for number, record in read_json_lines(path, VoteError))
    else:
        try:
            content = json.loads(read_text(path, VoteError))
        except json.JSONDecodeError as error:
            raise VoteError(f"{path} is not valid JSON ({error.msg}); download it again") from None
        records = ((str(path), record) for record in (content if isinstance(content, list) else [content]))
    for where, record in records:
        if not isinstance(record, dict):
            raise VoteError(f"{where}: a record is an object with fields, not {record!r}")
        yield Record(where, record)


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file; VoteError where it is damaged."""
    return list(_schema(path).names)


def struct_columns(path: Path) -> set[str]:
    """The columns of a Parquet file that have fields, as one that holds audio has bytes and path."""
    return {field.name for field in _schema(path) if pyarrow.types.is_struct(field.type)}


def parquet_rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Record]:
    """The records of a Parquet file with these columns alone; of an audio column its path, never its bytes."""
    present, audio = parquet_columns(path), struct_columns(path)
    need_columns(path, present, required)
    names = [*required, *(name for name in optional if name in present)]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read(columns=[f"{name}.path" if name in audio else name for name in names])
    except (pyarrow.ArrowException, OSError) as error:
        raise VoteError(f"{path} is damaged ({_first_line(error)}); download it again") from None
    for number, record in enumerate(table.to_pylist()):
        yield Record(f"{path} row {number}", record)


def _schema(path: Path) -> Any:
    try:
        return pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise VoteError(f"{path} is not a Parquet file ({_first_line(error)}); download it again") from None


def need_columns(path: Path, present: Sequence[str], required: Sequence[str]) -> None:
    """VoteError that names the columns of a file that are missing, and those that are there."""
    missing = [name for name in required if name not in present]
    if missing:
        raise VoteError(f"{path} has no column {' or '.join(missing)}; it has {', '.join(present) or 'none'}")


def unrecognized(folder: Path, content: str) -> VoteError:
    """The error for a folder in which nothing looks like the source."""
    return VoteError(f"{folder} does not hold {content}; give the folder that the data set was downloaded to")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

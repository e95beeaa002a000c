"""A folder of audio files with a caption table: the corpus of those who bring their own music."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from plaudit.corpus.manifest import Entry, load_clips, split_of
from plaudit.corpus.score_table import ID_COLUMN, SCORE_COLUMN, ScoreTable
from plaudit.corpus.table import table_rows
from plaudit.errors import CorpusError
from plaudit.files import find_file


@dataclass(frozen=True)
class FolderCorpus:
    """Audio files in `folder` and a CSV (UTF-8, with a header line) that gives each one its caption.

    `table` is a path, or a name inside the folder. Files are given relative to the table's folder or to `folder`, or
    absolutely. Without `id_column` the id is the file's path without its suffix. A file that is missing or damaged
    is no error of the table: loading it raises AudioError, and encoding puts it into quarantine.

    Rewards stand in `reward_column`, of this table or, where there is a `score_table`, of that one, by track
    (plaudit.corpus.score_table).

    The split hangs on the caption, not on the file: clips of one caption never lie on both sides, so that a caption
    of the test split is one that training has not seen (ours).
    """

    folder: Path
    table: Path
    file_column: str = "file"
    caption_column: str = "caption"
    reward_column: str | None = None
    id_column: str | None = None
    score_table: Path | None = None
    score_id_column: str = ID_COLUMN
    validation: float = 0.05
    test: float = 0.05

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.folder).resolve().name

    def entries(self) -> list[Entry]:
        """One entry per line of the table, in its order; CorpusError in one line where the table is malformed."""
        entries: list[Entry] = []
        seen: dict[str, int] = {}
        for line, row in self._rows():
            entry = self._entry(line, row)
            if entry.id in seen:
                raise CorpusError(
                    f"{self._table}: id {entry.id!r} stands on lines {seen[entry.id]} and {line}; make ids unique"
                )
            seen[entry.id] = line
            entries.append(entry)
        if not entries:
            raise CorpusError(f"{self._table} has no rows under its header; add at least one clip")
        if self.score_table is None:
            return entries
        scores = ScoreTable(self.score_table, self.score_id_column, self.reward_column or SCORE_COLUMN)
        return [replace(entry, reward=scores.score_of(entry)) for entry in entries]

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """The clips' stretches of their file."""
        return load_clips(clips, seconds)

    @property
    def _table(self) -> Path:
        given = Path(self.table)
        return given if os.path.isfile(given) else Path(self.folder) / given

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        if not Path(self.folder).is_dir():
            raise CorpusError(f"{self.folder} is not a folder; check the path")
        own_reward = self.reward_column if self.score_table is None else None
        wanted = [self.file_column, self.caption_column, own_reward, self.id_column]
        return table_rows(self._table, [column for column in wanted if column is not None])

    def _entry(self, line: int, row: dict[str, str]) -> Entry:
        file, caption = row[self.file_column].strip(), row[self.caption_column].strip()
        if not file:
            raise CorpusError(f"{self._table} line {line}: column {self.file_column!r} is empty; name the audio file")
        id = row[self.id_column].strip() if self.id_column else str(PurePosixPath(file).with_suffix(""))
        if not id:
            raise CorpusError(f"{self._table} line {line}: column {self.id_column!r} is empty; give the clip an id")
        return Entry(
            id=id,
            caption=caption,
            split=split_of(caption, self.validation, self.test),
            source=self.name,
            reward=self._reward(line, row),
            path=find_file(file, self._table.parent, Path(self.folder)) or Path(self.folder) / file,
        )

    def _reward(self, line: int, row: dict[str, str]) -> float | None:
        if self.score_table is not None or self.reward_column is None or not row[self.reward_column].strip():
            return None
        text = row[self.reward_column].strip()
        try:
            reward = float(text)
        except ValueError:
            reward = math.nan
        if not math.isfinite(reward):
            raise CorpusError(
                f"{self._table} line {line}: reward {text!r} in column {self.reward_column!r} is not a finite number; "
                "leave it empty where it is unknown"
            )
        return reward

"""Rewards that others have computed: a CSV of track ids and scores, joined to clips without hearing anything."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from plaudit.corpus.manifest import Entry
from plaudit.corpus.table import table_rows
from plaudit.errors import CorpusError
from plaudit.files import composed

ID_COLUMN, SCORE_COLUMN = "track_id", "reward_score"
"""As TuneJury's authors name them."""


class ScoreTable:
    """The scores of a CSV (UTF-8, with a header) by the ids in `id_column`.

    A clip is found under its own id, its file's name without suffix, or, where no two tracks share it, the number at
    the end of either: `jamendo_0000214` and `track_0000214` are the scores of `14/214.mp3` (ours). CorpusError names
    the line of what is malformed.
    """

    def __init__(self, path: Path, id_column: str = ID_COLUMN, score_column: str = SCORE_COLUMN) -> None:
        self.path = path
        self.scores = _read(path, id_column, score_column)
        numbers = Counter(_number(id) for id in self.scores)
        self._by_number = {_number(id): score for id, score in self.scores.items() if numbers[_number(id)] == 1}
        self._by_number.pop(None, None)

    def score_of(self, entry: Entry) -> float | None:
        """The score of a clip's track, or None where the table has none."""
        return self.find([entry.id, *([entry.path.stem] if entry.path else [])])

    def find(self, names: Sequence[str]) -> float | None:
        """The score under the first of these names that the table has, else under the number one of them ends with."""
        names = [composed(name) for name in names]
        for name in names:
            if name in self.scores:
                return self.scores[name]
        return next((self._by_number[n] for name in names if (n := _number(name)) in self._by_number), None)


def _read(path: Path, id_column: str, score_column: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    for line, row in table_rows(path, [id_column, score_column]):
        id, told = composed(row[id_column].strip()), row[score_column].strip()
        try:
            score = float(told)
        except ValueError:
            score = math.nan
        if not id or not math.isfinite(score):
            raise CorpusError(f"{path} line {line}: needs an id and a finite score, got {id!r} and {told!r}")
        if scores.setdefault(id, score) != score:
            raise CorpusError(f"{path} line {line}: {id!r} has two different scores; keep one")
    if not scores:
        raise CorpusError(f"{path} has no rows under its header; add scores")
    return scores


def _number(name: str) -> int | None:
    """The number that a name ends with, as `jamendo_0000214` does, or None."""
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else None

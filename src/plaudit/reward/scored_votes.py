"""Votes whose clips already have scores: what anchor calibration is fitted to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plaudit.errors import VoteError
from plaudit.reward.votes import winner_called

_WINNER = ("winner", "preference")
_SCORES = {"a": ("score_a", "tj_a"), "b": ("score_b", "tj_b")}
_IDS = ("id", "battle_id")


@dataclass(frozen=True)
class ScoredVote:
    """One choice between two clips, by the systems that made them and the scores that a reward gave them."""

    id: str
    system_a: str
    system_b: str
    score_a: float
    score_b: float
    winner: Literal["a", "b", "tie"]


def read_scored_votes(path: Path) -> list[ScoredVote]:
    """Scored votes of a CSV: system_a, system_b, winner or preference, score_a or tj_a, score_b or tj_b.

    The id is the column id or battle_id, else the line. VoteError names the column that is missing, or the line and
    column of the first value that cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = rows.fieldnames or ()
        columns = {
            "winner": _column(path, header, _WINNER),
            "score_a": _column(path, header, _SCORES["a"]),
            "score_b": _column(path, header, _SCORES["b"]),
            "system_a": _column(path, header, ("system_a",)),
            "system_b": _column(path, header, ("system_b",)),
        }
        name = next((column for column in _IDS if column in header), None)
        votes = [
            _scored_vote(row, columns, row[name] if name else str(rows.line_num), f"{path} line {rows.line_num}")
            for row in rows
        ]
    except FileNotFoundError:
        raise VoteError(f"{path} does not exist; check the file name") from None
    except (UnicodeDecodeError, IsADirectoryError, csv.Error) as error:
        raise VoteError(f"{path} is not a CSV in UTF-8 ({error}); save it as one") from None
    if not votes:
        raise VoteError(f"{path} holds no votes")
    return votes


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> str:
    for name in names:
        if name in header:
            return name
    raise VoteError(f"{path} has no column {' or '.join(names)}; it has {', '.join(header) or 'none'}")


def _scored_vote(row: Mapping[str, str | None], columns: Mapping[str, str], id: str, where: str) -> ScoredVote:
    values = {}
    for field, column in columns.items():
        value = row[column]
        if not value:
            raise VoteError(f"{where}: column {column!r} is empty")
        values[field] = value
    scores = {}
    for field in ("score_a", "score_b"):
        try:
            scores[field] = float(values[field])
        except ValueError:
            scores[field] = math.nan
        if not math.isfinite(scores[field]):
            raise VoteError(f"{where}: column {columns[field]!r} must be a number, not {values[field]!r}")
    winner = winner_called(values["winner"], f"{where}: column {columns['winner']!r}")
    return ScoredVote(id, values["system_a"], values["system_b"], scores["score_a"], scores["score_b"], winner)

"""AIME: pairs of ten-second excerpts of 12 systems and of MTG-Jamendo, compared for quality and for fit to the text.

Published in two data sets of Parquet files, CC BY 4.0: answers as disco-eth/AIME-survey, audio as disco-eth/AIME. Both
are searched for in the whole folder and distinguished by their columns. Both questions are votes, as in TuneJury.
"""

from __future__ import annotations

from pathlib import Path

from plaudit.errors import VoteError
from plaudit.reward.sources.layout import (
    Record,
    SourceClip,
    SourceVotes,
    need_folder,
    parquet_columns,
    parquet_rows,
    unrecognized,
)
from plaudit.types import Vote

_SURVEY = (
    "question-type", "description", "model-1", "model-2", "track-1-id", "track-2-id", "answer",
    "track-1-begin", "track-1-end", "track-2-begin", "track-2-end",
)  # fmt: skip
_AUDIO = ("id", "audio")


def read(folder: Path) -> SourceVotes:
    """One vote a row of the survey, with ids from aime_000000 on in its order; a clip is the excerpt that was played.

    The prompt is the tags, with commas. VoteError where there is no survey, a column is missing or an answer is
    neither 1 nor 2.
    """
    need_folder(folder)
    surveys, tracks = [], {}
    for path in sorted(folder.rglob("*.parquet")):
        columns = parquet_columns(path)
        if "audio" in columns:
            for number, row in enumerate(parquet_rows(path, _AUDIO)):
                tracks[row.number("id")] = (path, number)
        else:
            surveys.append(path)
    if not surveys:
        raise unrecognized(folder, "the survey of AIME (*.parquet with question-type and answer)")
    votes: list[Vote] = []
    clips = {}
    for path in surveys:
        for row in parquet_rows(path, _SURVEY):
            names = []
            for side in ("1", "2"):
                track = row.number(f"track-{side}-id")
                begin, end = (_seconds(row, f"track-{side}-{edge}") for edge in ("begin", "end"))
                names.append(f"aime-{track:05d}-{begin:g}")
                if track in tracks:
                    file, number = tracks[track]
                    clips[names[-1]] = SourceClip(file, "audio", number, begin, end)
            votes.append(_vote(row, len(votes), *names))
    return SourceVotes(votes, clips)


def _vote(row: Record, number: int, a: str, b: str) -> Vote:
    answer = row.number("answer")
    if answer not in (1, 2):
        raise VoteError(f"{row.where}: column 'answer' must be 1 or 2, not {answer}")
    tags = row.values["description"]
    return Vote(
        id=f"aime_{number:06d}",
        prompt=", ".join(map(str, tags)) if isinstance(tags, list) else row.text("description"),
        a=a,
        b=b,
        winner="a" if answer == 1 else "b",
        system_a=row.text("model-1"),
        system_b=row.text("model-2"),
        source="aime",
        listener="",
    )


def _seconds(row: Record, column: str) -> float:
    """A position written as HH:MM:SS."""
    value = row.text(column)
    try:
        total = 0.0
        for part in value.split(":"):
            total = 60 * total + float(part)
        return total
    except ValueError:
        raise VoteError(f"{row.where}: column {column!r} must be HH:MM:SS, not {value!r}") from None

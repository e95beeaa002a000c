"""SongEval (arXiv 2505.10793): songs that musicians rated from 1 to 5 in five respects, as pairs.

Published as ASLP-lab/SongEval, CC BY-NC-SA 4.0: `metadata.jsonl` with file_name and, per annotator, the five ratings,
and the songs as mp3. It has no prompts and does not name the systems of its songs. As in TuneJury, pairs are drawn at
random among those whose mean ratings are apart enough, and the better rated song wins.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from plaudit.errors import VoteError
from plaudit.reward.sources.layout import Record, SourceClip, SourceVotes, json_rows, need_folder, unrecognized
from plaudit.types import Vote

ASPECTS = ("Coherence", "Musicality", "Memorability", "Clarity", "Naturalness")
MIN_GAP = 0.5
MAX_PAIRS = 3760
"""How many pairs TuneJury drew."""
_SEED = 42
_ROUNDING = 1e-9
"""Means of whole ratings that are apart by the gap exactly may come out a little less in floating point."""


def read(folder: Path, min_gap: float = MIN_GAP) -> SourceVotes:
    """Pairs of songs whose mean rating differs by `min_gap` or more: 3,760 at random, or all where there are fewer.

    VoteError where the table is missing, a rating is missing or outside 1 to 5, or no pair is apart enough.
    """
    need_folder(folder)
    table = folder / "metadata.jsonl"
    if not table.is_file():
        raise unrecognized(folder, "SongEval (metadata.jsonl)")
    means, clips = {}, {}
    for row in json_rows(table):
        name = row.text("file_name")
        song = f"songeval-{PurePosixPath(name).stem}"
        if song in means:
            raise VoteError(f"{row.where}: column 'file_name' names {name!r} a second time")
        means[song] = _mean_rating(row)
        if (folder / name).is_file():
            clips[song] = SourceClip(folder / name)
    votes = [
        Vote(f"songeval_{number:06d}", "", a, b, "a" if means[a] > means[b] else "b", "", "", "songeval", "")
        for number, (a, b) in enumerate(_pairs(means, min_gap))
    ]
    if not votes:
        raise VoteError(f"{table}: no two of {len(means)} songs are rated {min_gap:g} apart; ask for a smaller gap")
    return SourceVotes(votes, clips)


def _mean_rating(row: Record) -> float:
    """The mean over the five respects of the mean over annotators."""
    ratings = row.values.get("annotation")
    if not isinstance(ratings, list) or not ratings:
        raise VoteError(f"{row.where}: column 'annotation' must be a list of ratings, not {ratings!r}")
    return sum(_rating(row, rating, aspect) for rating in ratings for aspect in ASPECTS) / len(ratings) / len(ASPECTS)


def _rating(row: Record, rating: Any, aspect: str) -> float:
    value = rating.get(aspect) if isinstance(rating, Mapping) else None
    try:
        if 1 <= float(value) <= 5:  # type: ignore[arg-type]  # what cannot be a number is refused below
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    raise VoteError(f"{row.where}: column 'annotation' needs {aspect!r} from 1 to 5, not {value!r}")


def _pairs(means: Mapping[str, float], min_gap: float) -> list[tuple[str, str]]:
    if min_gap <= 0:
        raise VoteError(f"with a gap of {min_gap:g} ties would be votes; give one above 0")
    songs = sorted(means)
    ordered = sorted(means.values())
    least = min_gap - _ROUNDING
    if sum(len(ordered) - bisect_left(ordered, mean + least) for mean in ordered) <= MAX_PAIRS:
        return [(a, b) for i, a in enumerate(songs) for b in songs[i + 1 :] if abs(means[a] - means[b]) >= least]
    generator = random.Random(_SEED)
    drawn: dict[frozenset[str], tuple[str, str]] = {}
    while len(drawn) < MAX_PAIRS:
        a, b = generator.sample(songs, 2)
        if abs(means[a] - means[b]) >= least:
            drawn.setdefault(frozenset((a, b)), (a, b))
    return list(drawn.values())

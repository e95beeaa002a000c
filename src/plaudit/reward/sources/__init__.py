"""Published votes, each source read from the layout it is published in, to the one vote schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plaudit.errors import VoteError
from plaudit.reward.sources import aime, music_arena, musicprefs, songeval
from plaudit.reward.sources.layout import SourceVotes


@dataclass(frozen=True)
class VoteSource:
    """A source of votes: the data sets of the Hub that it is published as, its licence, and its reader."""

    repositories: tuple[str, ...]
    licence: str
    read: Callable[[Path], SourceVotes]


SOURCES = {
    "music-arena": VoteSource(("music-arena/music-arena-dataset",), "CC BY 4.0", music_arena.read),
    "musicprefs": VoteSource(("i-need-sleep/musicprefs",), "none declared", musicprefs.read),
    "aime": VoteSource(("disco-eth/AIME-survey", "disco-eth/AIME"), "CC BY 4.0", aime.read),
    "songeval": VoteSource(("ASLP-lab/SongEval",), "CC BY-NC-SA 4.0", songeval.read),
}


def find_source(name: str) -> VoteSource:
    """The source called `name`; VoteError that lists those there are."""
    if name not in SOURCES:
        raise VoteError(f"no source of votes {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def read_source(name: str, folder: Path, min_gap: float | None = None) -> SourceVotes:
    """The votes of a source from the folder it was downloaded to.

    min_gap: for songeval, how far apart the mean ratings of a pair must be; VoteError with any other source.
    """
    source = find_source(name)
    if min_gap is None:
        return source.read(folder)
    if name != "songeval":
        raise VoteError(f"{name} has votes, not ratings; a gap between ratings goes with songeval alone")
    return songeval.read(folder, min_gap)

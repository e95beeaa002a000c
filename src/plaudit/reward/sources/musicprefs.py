"""MusicPrefs (arXiv 2503.16669): pairs of clips from seven systems, compared for musicality and for fidelity.

Published as i-need-sleep/musicprefs: `human_preference.csv`, and the audio in `data/*.parquet`, joined by file name.
The vote here is that on musicality (ours: the reward is to predict what is liked, not how cleanly it is recorded).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from plaudit.errors import VoteError
from plaudit.reward.sources.layout import SourceClip, SourceVotes, csv_rows, need_folder, parquet_rows, unrecognized
from plaudit.reward.votes import parse_winner
from plaudit.types import Vote

MUSICPREFS_TABLE = "human_preference.csv"
_REQUIRED = ("prompt", "audio_a", "audio_b", "system_a", "system_b", "musicality")


def read(folder: Path) -> SourceVotes:
    """One vote a row, with ids from prefs_000000 by its place in the table; its listeners are not identified.

    VoteError where the table is missing or lacks a column.
    """
    need_folder(folder)
    if not (folder / MUSICPREFS_TABLE).is_file():
        raise unrecognized(folder, f"MusicPrefs ({MUSICPREFS_TABLE})")
    audio = {}
    for path in sorted(folder.rglob("*.parquet")):
        for number, row in enumerate(parquet_rows(path, ("audio",))):
            name = (row.values["audio"] or {}).get("path")
            if not name:
                raise VoteError(f"{row.where}: column 'audio' has no path, by which votes name it")
            audio[PurePosixPath(name).stem] = SourceClip(path, "audio", number)
    votes: list[Vote] = []
    clips: dict[str, SourceClip] = {}
    for number, row in enumerate(csv_rows(folder / MUSICPREFS_TABLE, _REQUIRED)):
        a, b = (PurePosixPath(row.text(f"audio_{side}").strip()).stem for side in ("a", "b"))
        clips |= {clip: audio[clip] for clip in (a, b) if clip in audio}
        votes.append(
            Vote(
                id=f"prefs_{number:06d}",
                prompt=row.text("prompt"),
                a=a,
                b=b,
                winner=parse_winner(row.text("musicality"), f"{row.where}: column 'musicality'"),
                system_a=row.text("system_a"),
                system_b=row.text("system_b"),
                source="musicprefs",
                listener="",
            )
        )
    return SourceVotes(votes, clips)

"""The Song Describer Dataset: excerpts of two minutes, each with up to five captions that people wrote.

`song_describer.csv` names a track's file in its column path as `{folder}/{id}.mp3`; the files of the distribution lie
in `audio/` and are called `{folder}/{id}.2min.mp3`. Its authors made it for evaluation alone, so every clip is of the
test split.
"""

from __future__ import annotations

from pathlib import Path

from plaudit.audio import audio_under
from plaudit.corpus.jamendo import score_names
from plaudit.corpus.listing import Listing, counted, uncaptioned
from plaudit.corpus.manifest import Entry
from plaudit.corpus.score_table import ScoreTable
from plaudit.corpus.table import table_rows
from plaudit.files import composed

TABLE = "song_describer.csv"


def list_song_describer(folder: Path, table: Path | None = None, scores: ScoreTable | None = None) -> Listing:
    """One entry per caption, those of a track side by side. The table lies in the folder unless given.

    CorpusError in one line where the table is malformed.
    """
    files = audio_under(folder)
    present = {composed(str(file)): file for file in files}
    table = table or folder / TABLE
    entries: dict[str, Entry] = {}
    said: set[tuple[Path, str]] = set()
    repeated = []
    for _, row in table_rows(table, ["track_id", "caption", "path"]):
        track, caption, given = (row[name].strip() for name in ("track_id", "caption", "path"))
        path = next((present[p] for p in _places(folder, given) if p in present), folder / given)
        id = f"{track}-{row['caption_id'].strip()}" if row.get("caption_id", "").strip() else f"{track}-{len(entries)}"
        if id in entries or (path, caption) in said:
            repeated.append(id)
            continue
        said.add((path, caption))
        reward = None if scores is None else scores.find(score_names(track))
        entries[id] = Entry(id, caption, "test", "song_describer", reward, path)
    listed = sorted(entries.values(), key=lambda entry: str(entry.path))
    notes = [*counted("captions stand twice and count once", repeated), *uncaptioned(files, listed)]
    return Listing("song_describer", listed, notes)


def _places(folder: Path, given: str) -> list[str]:
    """Where a path of the table may lie: as it is or cut to two minutes, beside the table or in `audio`."""
    stem, dot, suffix = given.rpartition(".")
    names = (f"{stem}.2min{dot}{suffix}", given)
    return [composed(str(place / name)) for place in (folder / "audio", folder) for name in names]

"""Layouts of data sets: a folder with a caption table, MTG-Jamendo, Song Describer.

Audio lies at `{folder}/{id}.mp3`, or `{folder}/{id}_instrumental.mp3` where the vocals were removed, or
`{folder}/{id}.low.mp3` in the distribution of lower quality. Captions are a list of {"path", "caption"}, in which a
path ends in `{folder}/{id}` with any of these endings.

`song_describer.csv` has a track's file in its column path, as `{folder}/{id}.mp3`; the files of the distribution lie
in `audio/` and are called `{folder}/{id}.2min.mp3`. It is meant for evaluation only, so every clip is in
the test split.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from plaudit.audio import audio_under
from plaudit.corpus.manifest import Entry, load_clips, split_of
from plaudit.corpus.track_tables import ID_COLUMN, SCORE_COLUMN, LicenceTable, ScoreTable, counted, short_licence
from plaudit.errors import CorpusError
from plaudit.files import composed, find_file
from plaudit.registry import Registry
from plaudit.tables import Row, Table, read_table
from plaudit.writing import is_utf8


@dataclass(frozen=True)
class FolderCorpus:
    """Audio files in `folder` and a CSV (UTF-8, with a header line) with their captions.

    `table` is a path, or a name inside the folder. Paths in it are relative to the table's folder or to `folder`, or
    absolutely. Without `id_column` the id is the file's path without its suffix. A file that is missing or damaged
    is no error of the table: loading it raises AudioError, and encoding puts it into quarantine.

    Rewards are in `reward_column` of this table or, by track, of `score_table` where there is one
    (plaudit.corpus.track_tables); licences in `licence_column`.

    The split depends on the caption, not on the file, so that a caption of the test split is never in training (ours).
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
    licence_column: str | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.folder).resolve().name

    def entries(self) -> list[Entry]:
        """One entry per line of the table, in its order; CorpusError in one line where the table is malformed."""
        return self.scored_entries()[0]

    def scored_entries(self) -> tuple[list[Entry], list[str]]:
        """The entries, and notes on clips without a score and on scores without a clip where there is a score table."""
        entries: list[Entry] = []
        seen: dict[str, int] = {}
        for row in self._rows():
            entry = self._entry(row)
            if entry.id in seen:
                raise CorpusError(
                    f"{self._table}: id {entry.id!r} stands on lines {seen[entry.id]} and {row.line}; make ids unique"
                )
            seen[entry.id] = row.line
            entries.append(entry)
        if not entries:
            raise CorpusError(f"{self._table} has no rows under its header; add at least one clip")
        if self.score_table is None:
            return entries, []
        scores = ScoreTable(self.score_table, self.score_id_column, self.reward_column or SCORE_COLUMN)
        entries = [replace(entry, reward=scores.score_of(entry)) for entry in entries]
        unscored = [entry.id for entry in entries if entry.reward is None]
        return entries, [*counted("clips have no score and get no reward", unscored), *scores.unmatched_note()]

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """The clips' stretches of their file."""
        return load_clips(clips, seconds)

    @property
    def _table(self) -> Path:
        table = Path(self.table)
        return table if os.path.isfile(table) else Path(self.folder) / table

    def _rows(self) -> Table:
        if not Path(self.folder).is_dir():
            raise CorpusError(f"{self.folder} is not a folder; check the path")
        reward = self.reward_column if self.score_table is None else None
        columns = [self.file_column, self.caption_column, reward, self.id_column, self.licence_column]
        return read_table(self._table, [column for column in columns if column is not None])

    def _entry(self, row: Row) -> Entry:
        file, caption = row.filled(self.file_column, "name the audio file"), row[self.caption_column].strip()
        id = row.filled(self.id_column, "give the clip an id") if self.id_column else None
        id = id or str(PurePosixPath(file).with_suffix(""))
        return Entry(
            id=id,
            caption=caption,
            split=split_of(caption, self.validation, self.test),
            source=self.name,
            reward=self._reward(row),
            path=find_file(file, self._table.parent, Path(self.folder)) or Path(self.folder) / file,
            licence=short_licence(row[self.licence_column]) if self.licence_column else "",
        )

    def _reward(self, row: Row) -> float | None:
        if self.score_table is not None or self.reward_column is None or not row[self.reward_column].strip():
            return None
        text = row[self.reward_column].strip()
        try:
            reward = float(text)
        except ValueError:
            reward = math.nan
        if not math.isfinite(reward):
            raise CorpusError(
                f"{row.where}: reward {text!r} in column {self.reward_column!r} is not a finite number; "
                "leave it empty where it is unknown"
            )
        return reward


@dataclass(frozen=True)
class Listing:
    """Recordings, one entry for each with a caption, and notes for the user on what is missing or left out."""

    name: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)


def list_folder(folder: Path, captions: str | Path, **columns: Any) -> Listing:
    """The files that a CSV of captions names, with the columns of FolderCorpus; CorpusError where it is malformed."""
    corpus = FolderCorpus(folder, Path(captions), **columns)
    entries, notes = corpus.scored_entries()
    return Listing(corpus.name, entries, [*uncaptioned(audio_under(corpus.folder), entries), *notes])


def uncaptioned(files: Sequence[Path], entries: Sequence[Entry]) -> list[str]:
    """A note on the files that no entry names, if any."""
    named = {os.path.normpath(entry.path) for entry in entries if entry.path is not None}
    uncaptioned_files = [file for file in files if os.path.normpath(file) not in named]
    if uncaptioned_files:  # or named by another path, over a link
        real = {os.path.realpath(path) for path in named}
        uncaptioned_files = [file for file in uncaptioned_files if os.path.realpath(file) not in real]
    return counted("audio files have no caption and are left out", uncaptioned_files)


INSTRUMENTAL, LOW_QUALITY = "_instrumental", ".low"
ENDINGS = (INSTRUMENTAL, "", LOW_QUALITY)
"""Of several versions of a track the first of these is taken (ours): this is a corpus of instrumental music."""


def list_jamendo(
    folder: Path,
    captions: str | Path,
    rewards: str | Path | None = None,
    validation: float = 0.05,
    test: float = 0.05,
    reward_column: str = SCORE_COLUMN,
    licences: str | Path | None = None,
) -> Listing:
    """One entry per captioned track, by folder and number; its split depends on its number.

    rewards, reward_column: see ScoreTable. licences: see LicenceTable; MTG-Jamendo's is audio_licenses.txt.

    A track that is captioned twice in the same words counts once. A caption whose file is not there is an entry all
    the same, for the quarantine. CorpusError in one line where the captions are malformed or contradict each other.
    """
    scores = None if rewards is None else ScoreTable(rewards, score_column=reward_column)
    rights = None if licences is None else LicenceTable(Path(licences))
    best: dict[str, Path] = {}
    for path in sorted(audio_under(folder), key=lambda path: ENDINGS.index(_named(path)[1])):
        best.setdefault(_named(path)[0], path)
    entries: dict[str, Entry] = {}
    repeated, unscored, unlicensed = [], [], []
    for number, (given, caption) in enumerate(_captions(Path(captions)), start=1):
        track = _named(PurePosixPath(given))[0]
        if track in entries:
            if entries[track].caption != caption:
                second = f"the second is item {number}"
                raise CorpusError(f"{captions}: track {track} has two different captions ({second}); keep one")
            repeated.append(given)
            continue
        path = best.get(track, folder / given)
        names = track_names(track)
        reward = None if scores is None else scores.find(names)
        if scores is not None and reward is None:
            unscored.append(track)
        licence = "" if rights is None else rights.find(names) or ""
        if rights is not None and not licence:
            unlicensed.append(track)
        split = split_of(track.rpartition("/")[2], validation, test)
        entries[track] = Entry(track, caption, split, "jamendo", reward, path, licence=licence)
    listed = sorted(entries.values(), key=lambda entry: entry.id)
    notes = [
        *counted("captions are repeated and count once", repeated),
        *uncaptioned(sorted(best.values()), listed),
        *counted("tracks have no score and get no reward", unscored),
        *([] if scores is None else scores.unmatched_note()),
        *counted("tracks have no licence in the table", unlicensed),
    ]
    return Listing("jamendo", listed, notes)


def _named(path: Path | PurePosixPath) -> tuple[str, str]:
    """(`folder/id`, ending) of a path."""
    stem = path.name.removesuffix(path.suffix)
    ending = next((e for e in (INSTRUMENTAL, LOW_QUALITY) if stem.endswith(e)), "")
    return composed(f"{path.parent.name}/{stem.removesuffix(ending)}"), ending


def track_names(track: str) -> list[str]:
    """Names of a track of MTG-Jamendo in tables: TuneJury's, MTG's (track_0000214), or the plain number.

    `track` is its number, with or without the folder.
    """
    number = track.rpartition("/")[2]
    padded = number.zfill(7)
    return [f"jamendo_{number[-2:].zfill(2)}_{number}", f"track_{padded}", f"jamendo_{padded}", track, number]


def _captions(file: Path) -> list[tuple[str, str]]:
    """(path, caption) of each item of a caption file; an empty caption is left to the quarantine."""
    try:
        items: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CorpusError(f"{file} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file} is not a UTF-8 text file ({error}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{file} is not valid JSON ({error}); fix it") from None
    if not isinstance(items, list) or not items:
        raise CorpusError(f'{file} must be a list of {{"path", "caption"}} with at least one item')
    captions = []
    for number, item in enumerate(items, start=1):
        path, caption = (item.get(key) if isinstance(item, dict) else None for key in ("path", "caption"))
        if not isinstance(path, str) or not isinstance(caption, str) or len(PurePosixPath(path).parts) < 2:
            raise CorpusError(f'{file}: item {number} must have a "path" like 14/214.mp3 and a "caption", both texts')
        if not is_utf8(path + caption):
            raise CorpusError(f"{file}: item {number} holds half of a character; fix its text")
        captions.append((path, caption.strip()))
    return captions


SONG_DESCRIBER_TABLE = "song_describer.csv"


def list_song_describer(
    folder: Path,
    captions: str | Path | None = None,
    rewards: str | Path | None = None,
    reward_column: str = SCORE_COLUMN,
    licences: str | Path | None = None,
) -> Listing:
    """One entry per caption, those of a track side by side. The default table is song_describer.csv in the folder.

    rewards, reward_column, licences: as of list_jamendo, of which these tracks are.

    CorpusError in one line where the table is malformed.
    """
    files = audio_under(folder)
    present = {composed(str(file)): file for file in files}
    scores = None if rewards is None else ScoreTable(rewards, score_column=reward_column)
    rights = None if licences is None else LicenceTable(Path(licences))
    table = folder / SONG_DESCRIBER_TABLE if captions is None else Path(captions)
    entries: dict[str, Entry] = {}
    seen: set[tuple[Path, str]] = set()
    repeated, unscored, unlicensed = [], [], []
    for row in read_table(table, ["track_id", "caption", "path"]):
        track, caption, given = (row[name].strip() for name in ("track_id", "caption", "path"))
        path = next((present[p] for p in _places(folder, given) if p in present), folder / given)
        id = f"{track}-{row['caption_id'].strip()}" if row.get("caption_id", "").strip() else f"{track}-{len(entries)}"
        if id in entries or (path, caption) in seen:
            repeated.append(id)
            continue
        seen.add((path, caption))
        names = track_names(track)
        reward = None if scores is None else scores.find([f"sdd_{track}.2min", f"sdd_{track}", *names])
        if scores is not None and reward is None:
            unscored.append(id)
        licence = "" if rights is None else rights.find(names) or ""
        if rights is not None and not licence:
            unlicensed.append(id)
        entries[id] = Entry(id, caption, "test", "song_describer", reward, path, licence=licence)
    listed = sorted(entries.values(), key=lambda entry: str(entry.path))
    notes = [
        *counted("captions are repeated and count once", repeated),
        *uncaptioned(files, listed),
        *counted("captions have no score and get no reward", unscored),
        *([] if scores is None else scores.unmatched_note()),
        *counted("captions have no licence in the table", unlicensed),
    ]
    return Listing("song_describer", listed, notes)


def _places(folder: Path, path: str) -> list[str]:
    """Candidate paths of a file in the table: in full or cut to two minutes, beside the table or in `audio`."""
    stem, dot, suffix = path.rpartition(".")
    names = (f"{stem}.2min{dot}{suffix}", path)
    return [composed(str(place / name)) for place in (folder / "audio", folder) for name in names]


LAYOUTS: Registry[Callable[..., Listing]] = Registry(
    "corpus layout",
    "plaudit.layouts",
    {"folder": list_folder, "jamendo": list_jamendo, "song-describer": list_song_describer},
    error=CorpusError,
)
"""Functions of a folder and further options, as plain values, that list its recordings."""

"""Layouts of data sets: a folder with a caption table, MTG-Jamendo, Song Describer; and tables of their rewards.

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
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from plaudit.audio import audio_under
from plaudit.corpus.manifest import Entry, load_clips, split_of
from plaudit.errors import CorpusError
from plaudit.files import composed, find_file
from plaudit.registry import Registry
from plaudit.tables import Row, Table, read_table
from plaudit.writing import is_utf8

ID_COLUMN, SCORE_COLUMN = "track_id", "reward_score"
"""As TuneJury's authors name them."""


class ScoreTable:
    """The scores of a CSV (UTF-8, with a header) by the ids in `id_column`.

    A clip is found under its own id, its file's name without suffix, or, where no two tracks share it, the number at
    the end of either: `jamendo_0000214` and `track_0000214` are the scores of `14/214.mp3` (ours). CorpusError names
    the line of what is malformed.
    """

    def __init__(self, path: str | Path, id_column: str = ID_COLUMN, score_column: str = SCORE_COLUMN) -> None:
        self.scores = _read_scores(Path(path), id_column, score_column)
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


def _read_scores(path: Path, id_column: str, score_column: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    for row in read_table(path, [id_column, score_column]):
        id, text = composed(row[id_column].strip()), row[score_column].strip()
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not id or not math.isfinite(score):
            raise CorpusError(f"{row.where}: needs an id and a finite score, got {id!r} and {text!r}")
        if scores.setdefault(id, score) != score:
            raise CorpusError(f"{row.where}: {id!r} has two different scores; keep one")
    if not scores:
        raise CorpusError(f"{path} has no rows under its header; add scores")
    return scores


def _number(name: str) -> int | None:
    """The number that a name ends with, as `jamendo_0000214` does, or None."""
    match = re.search(r"(\d+)$", name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class FolderCorpus:
    """Audio files in `folder` and a CSV (UTF-8, with a header line) with their captions.

    `table` is a path, or a name inside the folder. Paths in it are relative to the table's folder or to `folder`, or
    absolutely. Without `id_column` the id is the file's path without its suffix. A file that is missing or damaged
    is no error of the table: loading it raises AudioError, and encoding puts it into quarantine.

    Rewards are in `reward_column` of this table or, by track, of `score_table` where there is one
    (plaudit.corpus.layouts).

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

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.folder).resolve().name

    def entries(self) -> list[Entry]:
        """One entry per line of the table, in its order; CorpusError in one line where the table is malformed."""
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
            return entries
        scores = ScoreTable(self.score_table, self.score_id_column, self.reward_column or SCORE_COLUMN)
        return [replace(entry, reward=scores.score_of(entry)) for entry in entries]

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
        columns = [self.file_column, self.caption_column, reward, self.id_column]
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
    entries = corpus.entries()
    return Listing(corpus.name, entries, uncaptioned(audio_under(corpus.folder), entries))


def uncaptioned(files: Sequence[Path], entries: Sequence[Entry]) -> list[str]:
    """A note on the files that no entry names, if any."""
    named = {os.path.normpath(entry.path) for entry in entries if entry.path is not None}
    uncaptioned_files = [file for file in files if os.path.normpath(file) not in named]
    if uncaptioned_files:  # or named by another path, over a link
        real = {os.path.realpath(path) for path in named}
        uncaptioned_files = [file for file in uncaptioned_files if os.path.realpath(file) not in real]
    return counted("audio files have no caption and are left out", uncaptioned_files)


def counted(what: str, examples: Sequence[object]) -> list[str]:
    """A note with the number of examples and the first; none without examples."""
    return [f"{len(examples)} {what}; the first: {examples[0]}"] if examples else []


INSTRUMENTAL, LOW_QUALITY = "_instrumental", ".low"
ENDINGS = (INSTRUMENTAL, "", LOW_QUALITY)
"""Of several versions of a track the first of these is taken (ours): this is a corpus of instrumental music."""


def list_jamendo(
    folder: Path,
    captions: str | Path,
    rewards: str | Path | None = None,
    validation: float = 0.05,
    test: float = 0.05,
) -> Listing:
    """One entry per captioned track, by folder and number; its split depends on its number. rewards: see ScoreTable.

    A track that is captioned twice in the same words counts once. A caption whose file is not there is an entry all
    the same, for the quarantine. CorpusError in one line where the captions are malformed or contradict each other.
    """
    scores = None if rewards is None else ScoreTable(rewards)
    best: dict[str, Path] = {}
    for path in sorted(audio_under(folder), key=lambda path: ENDINGS.index(_named(path)[1])):
        best.setdefault(_named(path)[0], path)
    entries: dict[str, Entry] = {}
    repeated, unscored = [], []
    for number, (given, caption) in enumerate(_captions(Path(captions)), start=1):
        track = _named(PurePosixPath(given))[0]
        if track in entries:
            if entries[track].caption != caption:
                second = f"the second is item {number}"
                raise CorpusError(f"{captions}: track {track} has two different captions ({second}); keep one")
            repeated.append(given)
            continue
        path = best.get(track, folder / given)
        reward = None if scores is None else scores.find(score_names(track))
        if scores is not None and reward is None:
            unscored.append(track)
        split = split_of(track.rpartition("/")[2], validation, test)
        entries[track] = Entry(track, caption, split, "jamendo", reward, path)
    listed = sorted(entries.values(), key=lambda entry: entry.id)
    notes = [
        *counted("captions are repeated and count once", repeated),
        *uncaptioned(sorted(best.values()), listed),
        *counted("tracks have no score and get no reward", unscored),
    ]
    return Listing("jamendo", listed, notes)


def _named(path: Path | PurePosixPath) -> tuple[str, str]:
    """(`folder/id`, ending) of a path."""
    stem = path.name.removesuffix(path.suffix)
    ending = next((e for e in (INSTRUMENTAL, LOW_QUALITY) if stem.endswith(e)), "")
    return composed(f"{path.parent.name}/{stem.removesuffix(ending)}"), ending


def score_names(track: str) -> list[str]:
    """Names of a track in tables of scores: MTG's (track_0000214), with the data set's name, or the plain number.

    `track` is its number, with or without the folder.
    """
    number = track.rpartition("/")[2]
    padded = number.zfill(7)
    return [f"track_{padded}", f"jamendo_{padded}", track, number]


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


def list_song_describer(folder: Path, captions: str | Path | None = None, rewards: str | Path | None = None) -> Listing:
    """One entry per caption, those of a track side by side. The default table is song_describer.csv in the folder.

    CorpusError in one line where the table is malformed.
    """
    files = audio_under(folder)
    present = {composed(str(file)): file for file in files}
    scores = None if rewards is None else ScoreTable(rewards)
    table = folder / SONG_DESCRIBER_TABLE if captions is None else Path(captions)
    entries: dict[str, Entry] = {}
    seen: set[tuple[Path, str]] = set()
    repeated = []
    for row in read_table(table, ["track_id", "caption", "path"]):
        track, caption, given = (row[name].strip() for name in ("track_id", "caption", "path"))
        path = next((present[p] for p in _places(folder, given) if p in present), folder / given)
        id = f"{track}-{row['caption_id'].strip()}" if row.get("caption_id", "").strip() else f"{track}-{len(entries)}"
        if id in entries or (path, caption) in seen:
            repeated.append(id)
            continue
        seen.add((path, caption))
        reward = None if scores is None else scores.find(score_names(track))
        entries[id] = Entry(id, caption, "test", "song_describer", reward, path)
    listed = sorted(entries.values(), key=lambda entry: str(entry.path))
    notes = [*counted("captions are repeated and count once", repeated), *uncaptioned(files, listed)]
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

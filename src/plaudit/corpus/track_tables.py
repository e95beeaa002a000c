"""Tables of scores and of licences by track, and the names by which the tracks of a corpus are found in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from plaudit.audio import SUFFIXES
from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError, listed
from plaudit.files import composed
from plaudit.tables import read_table, read_text

ID_COLUMN, SCORE_COLUMN = "track_id", "reward_score"
"""As TuneJury's authors name them. The paper's labels are in the column instrumental_reward_score."""

EXAMPLES = 3
"""Names that a note shows (ours)."""

T = TypeVar("T")


def counted(what: str, examples: Sequence[object]) -> list[str]:
    """A note with the number of examples and the first few; none without examples."""
    if not examples:
        return []
    return [f"{len(examples)} {what}; the first: {', '.join(map(str, examples[:EXAMPLES]))}"]


class TrackTable(Generic[T]):
    """Values by the ids of tracks, found under the other names that a track has.

    A track is found under its own name; else by that name without audio suffix, folders joined by underscores, and the
    id without its collection (`jamendo_00_1002000` is `00/1002000`, `openmic_134087_103680` is `134087_103680.ogg`,
    `musiccaps_-0Gj8-vB1q4.wav` is `-0Gj8-vB1q4.wav`, `sdd_5089.2min` is `5089.2min.mp3`); else by the number that both
    end with. The last two hold only where no two ids share them (ours).
    """

    def __init__(self, values: dict[str, T]) -> None:
        self.values = values
        self._found: set[str] = set()
        self._by_key = _unique(values, _keys)
        self._by_number = _unique(values, lambda id: [_number(id)])
        self._by_number.pop(None, None)

    def find(self, names: Iterable[str]) -> T | None:
        """The value of the track with these names, the surest first; None where the table has none."""
        id = next(self._matches([composed(name) for name in names]), None)
        if id is None:
            return None
        self._found.add(id)
        return self.values[id]

    def _matches(self, names: Sequence[str]) -> Iterator[str]:
        """The ids that any of the names may mean, the surest first."""
        yield from (name for name in names if name in self.values)
        yield from (self._by_key[key] for name in names for key in _keys(name) if key in self._by_key)
        numbers = (_number(name) for name in names)
        yield from (self._by_number[number] for number in numbers if number in self._by_number)

    def unmatched(self) -> list[str]:
        """The ids that were not found by any name so far, in their order."""
        return [id for id in self.values if id not in self._found]


def _unique(ids: Iterable[str], names_of: Callable[[str], Sequence[T]]) -> dict[T, str]:
    """The id of each name that one id alone has."""
    owners: dict[T, str | None] = {}
    for id in ids:
        for name in dict.fromkeys(names_of(id)):
            owners[name] = id if owners.get(name, id) == id else None
    return {name: id for name, id in owners.items() if id is not None}


def _keys(name: str) -> list[str]:
    """Names that mean the same track: without suffix; of a path its last two parts and the last; without collection.

    Plain numbers are left to `_number`, which knows 7 and 0000007 to be the same.
    """
    parts = _plain(name).split("/")
    keys = ["_".join(parts[-2:]), parts[-1]]
    if match := re.match(r"[A-Za-z]+_(.+)", parts[-1]):
        keys.append(match[1])
    return [key for key in dict.fromkeys(keys) if not key.isdigit()]


def _plain(name: str) -> str:
    """A name without the suffix of an audio file and without the ending of separated or smaller versions."""
    suffix = PurePosixPath(name).suffix
    stem = name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name
    return stem.removesuffix("_instrumental").removesuffix(".low")


def _number(name: str) -> int | None:
    """The number that a track's name ends with, as `jamendo_0000214` does, or None.

    Before it there may be MTG-Jamendo's folder, which is its last two digits. Two other numbers, as OpenMIC has them,
    name an excerpt, and the second alone names nothing.
    """
    stem = _plain(name).removesuffix(".2min")
    match = re.fullmatch(r"(?:.*?[^0-9])?(?:(\d+)[_/])?(\d+)", stem)
    if match is None or (match[1] is not None and match[1] != match[2][-2:].zfill(2)):
        return None
    return int(match[2])


class ScoreTable(TrackTable[float]):
    """The scores of a CSV (UTF-8, with a header) by the ids in `id_column`.

    CorpusError names the line of what is malformed.
    """

    def __init__(self, path: str | Path, id_column: str = ID_COLUMN, score_column: str = SCORE_COLUMN) -> None:
        self.path = Path(path)
        super().__init__(_read_scores(self.path, id_column, score_column))

    def score_of(self, entry: Entry) -> float | None:
        """The score of a clip's track, or None where the table has none."""
        return self.find([entry.id, *([entry.path.stem, *_path_names(entry.path)] if entry.path else [])])

    def unmatched_note(self) -> list[str]:
        """A note on the rows that are of no clip, with a few of them."""
        rows = self.unmatched()
        return counted(f"of {len(self.values)} scores in {self.path} are of no clip", rows)


def _path_names(path: Path) -> list[str]:
    return ["/".join(path.parts[-2:]), path.name]


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


class LicenceTable(TrackTable[str]):
    """The licences of tracks: a CSV or TSV with the columns track_id and licence (or license), or MTG-Jamendo's
    `audio_licenses.txt`, which has three lines a track: its file, its title with the artist, and its licence.

    CorpusError where it is neither.
    """

    def __init__(self, path: Path) -> None:
        text = read_text(path, CorpusError)
        blocks = [[line.strip() for line in block.splitlines()] for block in re.split(r"\n\s*\n", text.strip())]
        if all(_AUDIO_PATH.fullmatch(block[0]) and len(block) >= 2 for block in blocks):
            licences = {composed(block[0]): short_licence(block[-1]) for block in blocks}
        else:
            table = read_table(path, [ID_COLUMN])
            column = next((name for name in ("licence", "license") if name in table.columns), None)
            if column is None:
                raise CorpusError(
                    f"{path} has no column 'licence', and is not MTG-Jamendo's audio_licenses.txt; its columns are "
                    f"{listed(table.columns)}"
                )
            licences = {row.filled(ID_COLUMN, "name the track"): short_licence(row[column]) for row in table}
        super().__init__(licences)


_AUDIO_PATH = re.compile(r"\S+/\S+\.\w+")
_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<kind>[a-z-]+)|publicdomain/(?P<domain>zero|mark))/(?P<version>[\d.]+)"
    r"(?:/(?P<country>[a-z]{2})(?![a-z]))?"
)


def short_licence(text: str) -> str:
    """A licence by its usual short name, `CC-BY-NC-SA-3.0`, where the text holds Creative Commons' address; else the
    text behind its last "license:", as it is."""
    match = _CREATIVE_COMMONS.search(text)
    if match is None:
        return re.split(r"licen[sc]e:\s*", text.strip())[-1]
    if match["domain"]:
        return f"CC0-{match['version']}" if match["domain"] == "zero" else "public domain"
    country = f"-{match['country'].upper()}" if match["country"] else ""
    return f"CC-{match['kind'].upper()}-{match['version']}{country}"

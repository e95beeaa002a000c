"""MTG-Jamendo: audio in folders of a hundred, captions as JSON, rewards as released for its tracks.

Audio lies at `{folder}/{id}.mp3`, or `{folder}/{id}_instrumental.mp3` where somebody has taken the vocals out, or
`{folder}/{id}.low.mp3` in the distribution of lower quality. Captions are a list of {"path", "caption"}, in which a
path ends in `{folder}/{id}` with any of these endings.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from plaudit.audio import audio_under
from plaudit.corpus.listing import Listing, counted, uncaptioned
from plaudit.corpus.manifest import Entry, split_of
from plaudit.corpus.score_table import ScoreTable
from plaudit.errors import CorpusError
from plaudit.files import composed
from plaudit.writing import is_utf8

INSTRUMENTAL, LOW_QUALITY = "_instrumental", ".low"
ENDINGS = (INSTRUMENTAL, "", LOW_QUALITY)
"""Of several versions of a track the first of these is taken (ours): this is a corpus of instrumental music."""


def list_jamendo(
    folder: Path, captions: Path, scores: ScoreTable | None = None, validation: float = 0.05, test: float = 0.05
) -> Listing:
    """One entry per captioned track, by folder and number; its split hangs on its number.

    A track that is captioned twice in the same words counts once. A caption whose file is not there is an entry all
    the same, for the quarantine. CorpusError in one line where the captions are malformed or contradict each other.
    """
    best: dict[str, Path] = {}
    for path in sorted(audio_under(folder), key=lambda path: ENDINGS.index(_named(path)[1])):
        best.setdefault(_named(path)[0], path)
    entries: dict[str, Entry] = {}
    repeated, unscored = [], []
    for number, (given, caption) in enumerate(_captions(captions), start=1):
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
        *counted("captions stand twice and count once", repeated),
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
    """What tables of scores call a track: as MTG numbers them (track_0000214), with the data set's name, or plainly.

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
        raise CorpusError(f"{file} is not valid JSON ({error}); mend it") from None
    if not isinstance(items, list) or not items:
        raise CorpusError(f'{file} must be a list of {{"path", "caption"}} with at least one item')
    found = []
    for number, item in enumerate(items, start=1):
        path, caption = (item.get(key) if isinstance(item, dict) else None for key in ("path", "caption"))
        if not isinstance(path, str) or not isinstance(caption, str) or len(PurePosixPath(path).parts) < 2:
            raise CorpusError(f'{file}: item {number} must have a "path" like 14/214.mp3 and a "caption", both texts')
        if not is_utf8(path + caption):
            raise CorpusError(f"{file}: item {number} holds half of a character; mend its text")
        found.append((path, caption.strip()))
    return found

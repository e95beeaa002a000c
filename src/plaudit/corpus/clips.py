"""From whole recordings to clips: how many of each, and from where."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from plaudit.ahead import ahead
from plaudit.audio import audio_seconds
from plaudit.corpus.manifest import Entry
from plaudit.errors import AudioError, CorpusError
from plaudit.settings import CountOrZero, Seconds, Settings

SHORTEST = 0.5
"""A recording shorter than this share of a clip is no clip (ours)."""

SURVEYORS = 16
"""Threads that read headers; over a network file system they mostly wait (ours)."""


class Cutting(Settings):
    """Clips of `seconds`, at most `per_track` of each recording (0: as many as fit), which never overlap.

    place: `spread` takes the middle of as many equal parts, `start` the beginning, `random` parts chosen by the hash of
    the recording's id. The paper speaks of about 535,000 clips of some 55,000 tracks and not of their places: ten,
    spread, are ours.
    """

    seconds: Seconds = 10.0
    per_track: CountOrZero = 10
    place: Literal["spread", "start", "random"] = "spread"


def clip_starts(duration: float, cutting: Cutting, key: str = "") -> list[float]:
    """Where the clips of a recording of `duration` seconds begin, ascending, in whole hundredths of a second.

    One that is shorter than two clips gives its beginning, whatever the place.
    """
    fitting = math.floor(duration / cutting.seconds + 1e-6)
    if fitting < 2:
        return [0.0]
    count = min(fitting, cutting.per_track or fitting)
    if cutting.place == "start":
        starts = [i * cutting.seconds for i in range(count)]
    elif cutting.place == "spread":
        starts = [(i + 0.5) * duration / count - cutting.seconds / 2 for i in range(count)]
    else:
        dice = np.random.default_rng(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big"))
        slots = sorted(dice.choice(fitting, count, replace=False).tolist())
        shift = dice.uniform(0, duration - fitting * cutting.seconds)
        starts = [slot * cutting.seconds + shift for slot in slots]
    return [math.floor(start * 100 + 1e-6) / 100 for start in starts]


def survey(
    entries: Sequence[Entry], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[Path, float | str]:
    """How many seconds each recording has, or what is wrong with it, from the headers of the files."""
    paths = list(dict.fromkeys(entry.path for entry in entries if entry.path is not None))
    found: dict[Path, float | str] = {}
    with ThreadPoolExecutor(SURVEYORS, "survey") as pool:
        for path, told in zip(paths, ahead(pool, _seconds, paths, 4 * SURVEYORS), strict=True):
            found[path] = told
            progress(len(found), len(paths))
    return found


def _seconds(path: Path) -> float | str:
    try:
        return audio_seconds(path)
    except AudioError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); check the file"


def cut_clips(entries: Sequence[Entry], surveyed: dict[Path, float | str], cutting: Cutting) -> list[Entry]:
    """The clips of whole recordings, in their order: each is called by its recording's id, and `@` its start.

    All clips of a file are in the split of its first entry. A recording that cannot be used stays one entry, with its
    problem.
    """
    splits: dict[Path, str] = {}
    clips = []
    for entry in entries:
        if entry.path is None:
            raise CorpusError(f"entry {entry.id!r} has no file; only files are cut to clips")
        told = surveyed[entry.path]
        entry = replace(entry, split=splits.setdefault(entry.path, entry.split))
        if isinstance(told, float) and told < SHORTEST * cutting.seconds:
            told = f"{entry.path} is too short: {told:.2f} s, and a clip has {cutting.seconds:g} s"
        if isinstance(told, str) or entry.problem:
            clips.append(replace(entry, problem=entry.problem or str(told)))
            continue
        for start in clip_starts(told, cutting, entry.id):
            clips.append(replace(entry, id=f"{entry.id}@{start:.2f}" if start else entry.id, start=start))
    return clips

"""Cutting recordings into clips, and reading clips back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from plaudit.audio import audio_seconds
from plaudit.corpus.manifest import Corpus, Entry, recordings
from plaudit.errors import AudioError, CorpusError
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress, no_progress
from plaudit.settings import CountOrZero, Peak, Place, Seconds, Settings
from plaudit.storage import seed_of

SHORTEST_CLIP_SECONDS = 0.5
"""Recordings shorter than this fraction of a clip are not used (ours)."""

LONGER = 0.1
"""Seconds by which a file must exceed a clip to be called longer (ours): encoders pad."""

PUBLISHED_RATE = 44100
"""Hz in whose samples the published clips are placed: that of MTG-Jamendo's files."""

PROBE_THREADS = 16
"""Threads that look at files; over a network file system they mostly wait (ours)."""


class ClipSettings(Settings):
    """Clips of `seconds`, at most `per_track` of each recording (0: as many as fit), which never overlap.

    place: `spread` takes the middle of as many equal parts, `start` the beginning, `random` parts chosen by the hash of
    the recording's id, `published` clips at equal distances from the beginning to the end. peak: the recording as a
    whole is scaled to it before it is cut; 0.95 was published, None leaves it as it is.
    """

    seconds: Seconds = 10.0
    per_track: CountOrZero = 10
    place: Place = "spread"
    peak: Peak | None = None


def clip_starts(duration: float, cutting: ClipSettings, key: str = "") -> list[float]:
    """Start times of the clips of a recording of `duration` seconds, ascending, rounded down to 0.01 s.

    A recording shorter than two clips yields its beginning, whatever the place. The published starts are those of
    samples at PUBLISHED_RATE and are not rounded: i (T - L) // (n - 1) for the i-th of n clips of L in T samples.
    """
    fitting = math.floor(duration / cutting.seconds + 1e-6)
    if fitting < 2:
        return [0.0]
    count = min(fitting, cutting.per_track or fitting)
    if cutting.place == "start":
        starts = [i * cutting.seconds for i in range(count)]
    elif cutting.place == "spread":
        starts = [(i + 0.5) * duration / count - cutting.seconds / 2 for i in range(count)]
    elif cutting.place == "published":
        if count == 1:
            return [0.0]
        room = max(0, round(duration * PUBLISHED_RATE) - round(cutting.seconds * PUBLISHED_RATE))
        return [i * room // (count - 1) / PUBLISHED_RATE for i in range(count)]
    else:
        rng = np.random.default_rng(seed_of(key))
        slots = sorted(rng.choice(fitting, count, replace=False).tolist())
        shift = rng.uniform(0, max(0.0, duration - fitting * cutting.seconds))
        starts = [slot * cutting.seconds + shift for slot in slots]
    return [math.floor(start * 100 + 1e-6) / 100 for start in starts]


def measure_durations(entries: Sequence[Entry], progress: Progress = no_progress) -> dict[Path, float | str]:
    """The seconds of each recording, or why it is unusable (plaudit.audio.audio_seconds)."""
    paths = list(dict.fromkeys(entry.path for entry in entries if entry.path is not None))
    durations: dict[Path, float | str] = {}
    measured = prefetch(_seconds, paths, depth=4 * PROBE_THREADS, threads=PROBE_THREADS)
    for path, seconds in zip(paths, measured, strict=True):
        durations[path] = seconds
        progress(len(durations), len(paths))
    return durations


def _seconds(path: Path) -> float | str:
    try:
        return audio_seconds(path)
    except AudioError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); check the file"


def cut_clips(entries: Sequence[Entry], durations: dict[Path, float | str], cutting: ClipSettings) -> list[Entry]:
    """The clips of recordings, in their order, with ids RECORDING@START.

    All clips of a file are in the split of its first entry. A recording that cannot be used stays one entry, with its
    problem.
    """
    splits: dict[Path, str] = {}
    clips = []
    for entry in entries:
        if entry.path is None:
            raise CorpusError(f"entry {entry.id!r} has no file; only files are cut to clips")
        duration = durations[entry.path]
        entry = replace(entry, split=splits.setdefault(entry.path, entry.split))
        if isinstance(duration, float) and duration < SHORTEST_CLIP_SECONDS * cutting.seconds:
            duration = f"{entry.path} is too short: {duration:.2f} s, and a clip has {cutting.seconds:g} s"
        if isinstance(duration, str) or entry.problem:
            clips.append(replace(entry, problem=entry.problem or str(duration)))
            continue
        for start in clip_starts(duration, cutting, entry.id):
            clips.append(replace(entry, id=entry.id + _place(start), start=start, peak=cutting.peak))
    return clips


def recording_of(clip: Entry) -> str:
    """The id of the recording that `cut_clips` has cut a clip from."""
    return clip.id.removesuffix(_place(clip.start))


def _place(start: float) -> str:
    """The suffix of a clip's id for its start in seconds."""
    return f"@{start:.2f}" if start else ""


def cutting_notes(
    clips: Sequence[Entry], durations: dict[Path, float | str], cutting: ClipSettings, option: str
) -> list[str]:
    """A note on files longer than a clip, if any; `option` names the setting for the number of clips per file."""
    lengths = {path: length for path, length in durations.items() if isinstance(length, float)}
    longer = {path for path, length in lengths.items() if length >= cutting.seconds + LONGER}
    if not longer:
        return []
    cut = sum(clip.path in longer and not clip.problem for clip in clips)
    minutes = sum(lengths[path] for path in longer) / 60
    return [
        f"{len(longer)} of {len(durations)} files are longer than {cutting.seconds:g} s and are cut to clips: {cut}, "
        f"which is {cut * cutting.seconds / 60:.1f} of {minutes:.1f} min; {option} sets how many of a file"
    ]


class ClipReader:
    """Clips of a corpus by id, at most `seconds` of each: the stretches that are encoded.

    A recording is decoded once for all of its clips among `ids` if they are read one after the other.
    """

    def __init__(self, corpus: Corpus, ids: Sequence[str], seconds: float) -> None:
        self._corpus, self._seconds = corpus, seconds
        selected = set(ids)
        runs = recordings([entry for entry in corpus.entries() if entry.id in selected])
        self._run_of = {entry.id: run for run in runs for entry in run}
        self._waves: dict[str, np.ndarray] = {}
        self._rate = 0

    def read(self, id: str) -> tuple[np.ndarray, int]:
        """(mono float32 [T], rate in Hz) of a clip; AudioError where its recording can no longer be used."""
        if id not in self._waves:
            run = self._run_of[id]
            waves, self._rate = self._corpus.load(run, self._seconds)
            self._waves = {entry.id: wave for entry, wave in zip(run, waves, strict=True)}
        return self._waves.pop(id), self._rate

"""Size and duration of a preparation, from a short measurement on some of its clips."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plaudit.corpus.manifest import Entry, recordings
from plaudit.corpus.shards import Job, ShardEncoder

BYTES = 2
"""Of a float16 number."""


@dataclass(frozen=True)
class PreparationEstimate:
    """`hours` of clips, `size` in bytes and what is `free` on the disk, distinct `captions`.

    `seconds` is the time of all of it in one process as fast as this one was on `measured` clips, or None where nothing
    could be measured.
    """

    tracks: int
    clips: int
    unusable: int
    splits: dict[str, int]
    hours: float
    captions: int
    rewarded: int
    size: int
    free: int
    measured: int
    clips_per_second: float | None
    seconds: float | None


def estimate_preparation(entries: list[Entry], encoder: ShardEncoder, folder: Path) -> PreparationEstimate:
    """Count the clips of `entries`, and encode a few batches of them, after one to warm up.

    Clips that turn out to be unusable only when they are decoded are counted as usable.
    """
    usable = [entry for entry in entries if not entry.problem]
    captions = list(dict.fromkeys(entry.caption for entry in usable))
    codec, text = encoder.codec, encoder.text_encoder
    clip_size = 2 * BYTES * encoder.frames * codec.latent_dim
    caption_size = BYTES * (text.length * text.token_dim + text.pooled_dim)
    measured, pace, seconds = 0, None, None
    if usable:
        measured, each = _seconds_a_clip(usable, encoder)
        pace = 1 / each
        seconds = each * len(usable) + _seconds_a_caption(captions, encoder) * len(captions)
    return PreparationEstimate(
        tracks=len({entry.path for entry in usable}),
        clips=len(usable),
        unusable=len(entries) - len(usable),
        splits=dict(Counter(entry.split for entry in usable)),
        hours=len(usable) * encoder.frames * codec.hop / codec.sample_rate / 3600,
        captions=len(captions),
        rewarded=sum(entry.reward is not None for entry in usable),
        size=clip_size * len(usable) + caption_size * len(captions),
        free=shutil.disk_usage(next(place for place in _upwards(folder) if place.is_dir())).free,
        measured=measured,
        clips_per_second=pace,
        seconds=seconds,
    )


def _seconds_a_clip(entries: list[Entry], encoder: ShardEncoder) -> tuple[int, float]:
    """(number of clips measured, seconds per clip), on recordings spread over the list."""
    runs = recordings(entries)
    needed = 1 + -(-2 * encoder.batch_size * len(runs) // len(entries))  # one to warm up, then two batches
    chosen = [runs[i * len(runs) // needed] for i in range(needed)] if len(runs) > needed else runs
    list(encoder([Job("warm-up", tuple(chosen[0]))]))
    entries_timed = [entry for run in chosen[1:] or chosen for entry in run]
    began = time.perf_counter()
    list(encoder([Job("measured", tuple(entries_timed))]))
    return len(entries_timed), (time.perf_counter() - began) / len(entries_timed)


def _seconds_a_caption(captions: list[str], encoder: ShardEncoder) -> float:
    chosen = captions[: encoder.batch_size]
    list(encoder([Job("warm-up", captions=tuple(chosen))]))
    began = time.perf_counter()
    list(encoder([Job("measured", captions=tuple(chosen))]))
    return (time.perf_counter() - began) / len(chosen)


def _upwards(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.absolute().parents

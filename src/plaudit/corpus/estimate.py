"""What a preparation will make, and how long it will take by a short measurement on some of its clips."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plaudit.corpus.manifest import Entry, recordings
from plaudit.corpus.shards import Job, ShardEncoder

HALF = 2
"""Bytes of a stored number."""


@dataclass(frozen=True)
class PreparationEstimate:
    """What will be there: `hours` of clips, `size` in bytes of `free` on the disk, `captions` that are distinct.

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


def estimate_preparation(entries: list[Entry], maker: ShardEncoder, folder: Path) -> PreparationEstimate:
    """Count the clips of `entries`, and send a few batches of them through `maker`, the first of them unmeasured.

    Clips that turn out to be unusable only when they are decoded are counted as usable.
    """
    usable = [entry for entry in entries if not entry.problem]
    captions = list(dict.fromkeys(entry.caption for entry in usable))
    codec, text = maker.codec, maker.text_encoder
    clip_size = 2 * HALF * maker.frames * codec.latent_dim
    caption_size = HALF * (text.length * text.token_dim + text.pooled_dim)
    measured, pace, seconds = 0, None, None
    if usable:
        measured, each = _seconds_a_clip(usable, maker)
        pace = 1 / each
        seconds = each * len(usable) + _seconds_a_caption(captions, maker) * len(captions)
    return PreparationEstimate(
        tracks=len({entry.path for entry in usable}),
        clips=len(usable),
        unusable=len(entries) - len(usable),
        splits=dict(Counter(entry.split for entry in usable)),
        hours=len(usable) * maker.frames * codec.hop / codec.sample_rate / 3600,
        captions=len(captions),
        rewarded=sum(entry.reward is not None for entry in usable),
        size=clip_size * len(usable) + caption_size * len(captions),
        free=shutil.disk_usage(next(place for place in _upwards(folder) if place.is_dir())).free,
        measured=measured,
        clips_per_second=pace,
        seconds=seconds,
    )


def _seconds_a_clip(entries: list[Entry], maker: ShardEncoder) -> tuple[int, float]:
    """(how many clips were measured, seconds for each): recordings from all over the list."""
    runs = recordings(entries)
    wanted = 1 + -(-2 * maker.batch_size * len(runs) // len(entries))  # one to warm up, then two batches
    chosen = [runs[i * len(runs) // wanted] for i in range(wanted)] if len(runs) > wanted else runs
    list(maker([Job("warm-up", tuple(chosen[0]))]))
    rest = [entry for run in chosen[1:] or chosen for entry in run]
    began = time.perf_counter()
    list(maker([Job("measured", tuple(rest))]))
    return len(rest), (time.perf_counter() - began) / len(rest)


def _seconds_a_caption(captions: list[str], maker: ShardEncoder) -> float:
    chosen = captions[: maker.batch_size]
    list(maker([Job("warm-up", captions=tuple(chosen))]))
    began = time.perf_counter()
    list(maker([Job("measured", captions=tuple(chosen))]))
    return (time.perf_counter() - began) / len(chosen)


def _upwards(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.absolute().parents

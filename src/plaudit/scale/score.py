"""Scores of files by Ray's workers: one task is a handful of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from plaudit import hub
from plaudit.reward.cache import ScoreCache
from plaudit.reward.scoring import BATCH, Clip, Progress, ScoredClip, score_clips
from plaudit.scale.cluster import Cluster, findable, on_ray

TASK = 16 * BATCH
"""Clips of a task (ours): few enough that a lost worker costs little."""


def score_clips_on_ray(
    clips: Sequence[Clip],
    reward: str,
    cluster: Cluster,
    cached: bool = True,
    progress: Progress = lambda done, total: None,
) -> list[ScoredClip]:
    """As plaudit.reward.scoring.score_clips, for the reward called `reward`; workers use the caches of their machines.

    Clips are judged in the company of their task, so that scores may differ from those of one process in their last
    digits.
    """
    found = [replace(clip, file=clip.file.absolute()) for clip in clips]
    parts = [tuple(found[start : start + TASK]) for start in range(0, len(clips), TASK)]
    scored: dict[int, list[ScoredClip]] = {}
    for number, rows in on_ray(partial(_judge, findable(reward), cached), parts, cluster):
        scored[number] = rows
        progress(sum(map(len, scored.values())), len(clips))
    rows = [row for number in range(len(parts)) for row in scored[number]]
    return [replace(row, clip=clip) for row, clip in zip(rows, clips, strict=True)]


def _judge(name: str, cached: bool) -> Callable[[tuple[Clip, ...]], list[ScoredClip]]:
    jury = hub.load_reward_model(name)
    cache = ScoreCache.of_user(print) if cached else None
    return lambda clips: score_clips(clips, jury, cache)

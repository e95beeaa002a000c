"""Clips by Ray's workers: one task is one batch of requests, whose files its worker writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from plaudit import hub
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.execution import Execution
from plaudit.generate.model import ANYHOW, TextToMusic
from plaudit.generate.postprocess import PostprocessSettings
from plaudit.generate.settings import SamplingSettings
from plaudit.scale.cluster import Cluster, findable, on_ray


def make_clips_on_ray(
    names: tuple[str, str | None],
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    cluster: Cluster,
    execution: Execution = ANYHOW,
    post: PostprocessSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    made: Callable[[Path], None] = lambda path: None,
) -> list[Path]:
    """As plaudit.generate.clips.make_clips, for the model and the second model, or None, of these names;
    `folder` must be the same on all machines.

    Batches are those that `model`, the same one loaded here, is given on this machine, so that on like machines the
    files are those of one process. made(path) hears of them as batches are finished.
    """
    batch = model.sampler(settings, execution).batch
    execution = execution.model_copy(update={"batch": batch})
    parts = [tuple(requests[start : start + batch]) for start in range(0, len(requests), batch)]
    there = findable(names[0]), None if names[1] is None else findable(names[1])
    build = partial(_maker, there, cluster.device, settings, folder.absolute(), execution, post)
    done = 0
    for _, paths in on_ray(build, parts, cluster):
        for path in paths:
            made(folder / path.name)
        done += len(paths)
        progress(done, len(requests))
    return [folder / f"{request.id}.wav" for request in requests]


def _maker(
    names: tuple[str, str | None],
    device: str,
    settings: SamplingSettings,
    folder: Path,
    execution: Execution,
    post: PostprocessSettings | None,
) -> Callable[[tuple[ClipRequest, ...]], list[Path]]:
    model = hub.load(names[0], device)
    if names[1] is not None:
        model = replace(model, second=hub.load(names[1], device))
    return lambda requests: make_clips(model, requests, settings, folder, execution, post)

"""Clips by Ray's workers: one task is one batch of requests, whose files its worker writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from plaudit import hub
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.execution import Execution, batch_size
from plaudit.generate.model import ANYHOW, TextToMusic
from plaudit.generate.postprocess import PostprocessSettings
from plaudit.generate.settings import SamplingSettings
from plaudit.scale.cluster import Cluster, findable, on_ray


def make_clips_on_ray(
    name: str,
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
    """As plaudit.generate.clips.make_clips, for the model called `name`; `folder` must be the same on all machines.

    Batches are those that `model`, the same one loaded here, is given on this machine, so that on like machines the
    files are those of one process. made(path) hears of them as batches are finished.
    """
    device = model.backbone.latent_mean.device
    batch = batch_size(model.config.backbone, model.frames, settings, execution, device)
    execution = execution.model_copy(update={"batch": batch})
    parts = [tuple(requests[start : start + batch]) for start in range(0, len(requests), batch)]
    build = partial(_maker, findable(name), cluster.device, settings, folder.absolute(), execution, post)
    done = 0
    for _, paths in on_ray(build, parts, cluster):
        for path in paths:
            made(folder / path.name)
        done += len(paths)
        progress(done, len(requests))
    return [folder / f"{request.id}.wav" for request in requests]


def _maker(
    name: str,
    device: str,
    settings: SamplingSettings,
    folder: Path,
    execution: Execution,
    post: PostprocessSettings | None,
) -> Callable[[tuple[ClipRequest, ...]], list[Path]]:
    model = hub.load(name, device)
    return lambda requests: make_clips(model, requests, settings, folder, execution, post)

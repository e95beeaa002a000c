"""Clips by Ray's workers: one task is one batch of requests, whose files its worker writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from plaudit import hub
from plaudit.audio_format import AudioFormat
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.delivery import Delivery, prepared_delivery
from plaudit.generate.execution import Execution
from plaudit.generate.model import ANYHOW, TextToMusic
from plaudit.generate.settings import PostSettings, SamplingSettings
from plaudit.scale.cluster import Cluster, findable, on_ray


def stream_clips_on_ray(
    names: tuple[str, str | None],
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    cluster: Cluster,
    execution: Execution = ANYHOW,
    delivery: Delivery | None = None,
    keep_others: bool = False,
) -> Iterator[Path]:
    """As plaudit.generate.clips.stream_clips, for the model and the second model, or None, of these names;
    `folder` must be the same on all machines.

    Batches are those that `model`, the same one loaded here, is given on this machine, so that on like machines the
    files are those of one process. They come in order: a batch that is finished early waits for those before it. Each
    worker loads the delivery's separator itself.
    """
    batch = model.sampler(settings, execution).batch
    execution = execution.model_copy(update={"batch": batch})
    parts = [tuple(requests[start : start + batch]) for start in range(0, len(requests), batch)]
    there = findable(names[0]), None if names[1] is None else findable(names[1])
    told = None if delivery is None else (delivery.post, delivery.file)
    build = partial(_maker, there, cluster.device, settings, folder.absolute(), execution, told, keep_others)
    early: dict[int, list[Path]] = {}
    following = 0
    for number, paths in on_ray(build, parts, cluster):
        early[number] = paths
        while following in early:
            yield from (folder / path.name for path in early.pop(following))
            following += 1


def _maker(
    names: tuple[str, str | None],
    device: str,
    settings: SamplingSettings,
    folder: Path,
    execution: Execution,
    told: tuple[PostSettings, AudioFormat] | None,
    keep_others: bool,
) -> Callable[[tuple[ClipRequest, ...]], list[Path]]:
    model = hub.load(names[0], device)
    if names[1] is not None:
        model = replace(model, second=hub.load(names[1], device))
    delivery = None if told is None else prepared_delivery(*told, hub.resolve_device(device))
    return lambda requests: make_clips(model, requests, settings, folder, execution, delivery, keep_others=keep_others)

"""Shards made by Ray's workers: one task is one shard, and the process that asked writes it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from torch import nn

from plaudit import hub
from plaudit.corpus.encoding import Advance, Engine, Job, MadeShard, ShardMaker
from plaudit.corpus.manifest import load_file
from plaudit.corpus.shards import frames_of
from plaudit.scale.cluster import Cluster, on_ray


def build_maker(codec: str, text_encoder: str, seconds: float, batch_size: int, device: str) -> ShardMaker:
    """A maker of shards of audio files, with models by name (plaudit.hub) on `device`."""
    place = hub.resolve_device(device)
    built, reader = hub.build(hub.CODECS, codec), hub.build(hub.TEXT_ENCODERS, text_encoder)
    for model in (built, reader):
        if isinstance(model, nn.Module):
            model.to(place)
    return ShardMaker(load_file, built, reader, frames_of(built, seconds), batch_size, place)


def ray_engine(build: Callable[[], ShardMaker], cluster: Cluster) -> Engine:
    """An engine whose shards are made by workers that each have a build() of their own.

    Shards come back in the order in which they are finished, each with the bytes that a single process makes.
    """

    def make(jobs: Sequence[Job], advance: Advance) -> Generator[MadeShard]:
        for number, made in on_ray(partial(_one_at_a_time, build), jobs, cluster):
            advance(len(jobs[number].entries))
            yield made

    return make


def _one_at_a_time(build: Callable[[], ShardMaker]) -> Callable[[Job], Any]:
    maker = build()
    return lambda job: next(iter(maker([job])))

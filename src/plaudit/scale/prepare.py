"""Shards made by Ray's workers: one task is one shard, and the process that asked writes it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn

from plaudit import hub
from plaudit.corpus.encoding import Advance, Engine, Job, MadeShard, ShardMaker, Treatment
from plaudit.corpus.jamendo import INSTRUMENTAL
from plaudit.corpus.manifest import Entry, load_clips
from plaudit.corpus.shards import frames_of
from plaudit.errors import ModelError
from plaudit.generate.separation import load_separator
from plaudit.generate.settings import SeparationSettings
from plaudit.scale.cluster import Cluster, on_ray

NO_SEPARATION = SeparationSettings()


def build_maker(
    codec: str,
    text_encoder: str,
    seconds: float,
    batch_size: int,
    device: str,
    separation: SeparationSettings = NO_SEPARATION,
) -> ShardMaker:
    """A maker of shards of audio files, with models by name (plaudit.hub) on `device`.

    ModelError where passes of separation are asked for and the extra is not installed.
    """
    place = hub.resolve_device(device)
    built, reader = hub.build(hub.CODECS, codec), hub.build(hub.TEXT_ENCODERS, text_encoder)
    for model in (built, reader):
        if isinstance(model, nn.Module):
            model.to(place)
    treatment = vocal_removal(separation, place) if separation.passes else None
    return ShardMaker(load_clips, built, reader, frames_of(built, seconds), batch_size, place, treatment)


def vocal_removal(settings: SeparationSettings, device: torch.device) -> Treatment:
    """Passes of separation over each clip, but for those whose file says that it is instrumental."""
    separator = load_separator(settings.model, device)
    if separator is None:
        raise ModelError("taking vocals out needs the demucs package; pip install 'plaudit[separate]'")
    turns = Lock()

    def apply(wave: np.ndarray, rate: int) -> np.ndarray:
        with turns:  # clips are decoded in threads, and one separation fills the machine
            return separator([wave], rate, settings)[0].wave

    def spared(entry: Entry) -> bool:
        return entry.path is not None and entry.path.stem.endswith(INSTRUMENTAL)

    return Treatment(f"separation {settings.model_dump_json()}", apply, spared)


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

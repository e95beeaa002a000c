"""Throughput of the training data loader."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from plaudit.backbone.config import PRESETS, BackboneConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.corpus.shards import ShardSet, encode_corpus
from plaudit.prefetch import prefetch
from plaudit.processors import processors
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.training.data import Source, TrainingSet
from tests.stages.noise import NoiseCodec, NoiseCorpus, NoiseText

FRAMES, BATCH = 430, 64


def make_shards(
    folder: Path, clips: int, config: BackboneConfig = PRESETS["fluxaudio-s-44k"], frames: int = FRAMES
) -> int:
    """A shard set of noise in the shapes of `config`, two clips to a caption; its size in bytes."""
    text = NoiseText(config.text_length, config.text_dim, config.text_c_dim)
    samples = frames * config.latent_dim
    encode_corpus(NoiseCorpus(clips, samples), NoiseCodec(config.latent_dim), text, folder, samples / 100)
    return sum(path.stat().st_size for path in folder.iterdir())


def evict(folder: Path) -> None:
    """Evict the files of a folder from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(draw: Callable[[int], Any], batches: range, loader_threads: int) -> tuple[float, float]:
    """Clips per second, and clips per second of processor time of all threads."""
    began, busy = time.perf_counter(), time.process_time()
    for _ in prefetch(draw, batches, depth=2 * loader_threads, threads=loader_threads):
        pass
    clips = len(batches) * BATCH
    return clips / (time.perf_counter() - began), clips / (time.process_time() - busy)


def main(clips: Annotated[int, typer.Argument(min=1)] = 4096) -> None:
    """Clips per second and per core of batches in the paper's shapes, from a shard set of noise in shuffled order.

    The shapes are posterior 430 x 40 and text 77 x 1024 and 512, in float16. "read" is the rows of a batch alone,
    "draw" all that a loss takes, noise included. Cold is an epoch after the files were evicted from the page cache
    (Linux only), warm the one after it. FluxAudio-S on one H200 trains on about 1,000 clips per second.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        size = make_shards(Path(name), clips)
        print(f"{clips} clips, {size / 1e9:.2f} GB, batches of {BATCH}, {processors()} cores")
        print(f"{'':6} {'threads':>8} {'':5} {'clips/s':>9} {'per core':>9}")
        model = FluxAudio(replace(PRESETS["fluxaudio-s-44k"], injection="global_adaln"))
        settings = FlowTrainSettings(steps=1, learning_rate=1, batch=BATCH)
        for part in ("read", "draw"):
            for loader_threads in (1, 2):
                evict(Path(name))
                shards = ShardSet(name, verify=False)
                rows = shards.rows("train")
                data = TrainingSet([Source(shards, rows, shards.rewards[rows])], seed=0)
                objective = SftObjective(model, data, settings)
                read = partial(data.batch, size=BATCH)
                draw = read if part == "read" else partial(objective.draw, part=slice(None))
                epoch = len(data) // BATCH
                for number, state in enumerate(("cold", "warm")):
                    speed, per_core = measure(draw, range(number * epoch, (number + 1) * epoch), loader_threads)
                    print(f"{part:6} {loader_threads:8} {state:5} {speed:9,.0f} {per_core:9,.0f}")


if __name__ == "__main__":
    typer.run(main)

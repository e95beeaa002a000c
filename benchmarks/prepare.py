"""Throughput of preparing a data set, and its bottleneck."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.jamendo_folder import write_jamendo
from plaudit import loading
from plaudit.corpus.clips import ClipSettings, cut_clips, measure_durations
from plaudit.corpus.layouts import list_jamendo
from plaudit.corpus.manifest import ListedCorpus
from plaudit.corpus.shards import PhaseTimer, encode_corpus
from plaudit.machine import peak_memory
from plaudit.processors import processors

PER_TRACK, SECONDS = 10, 10.0


def main(clips: Annotated[int, typer.Argument(min=1)] = 2000) -> None:
    """Clips per second and per core, memory, processor time by phase, and waiting times of the encoding thread.

    MP3 files (44.1 kHz, stereo, 100 s) of synthetic music are written in the layout of MTG-Jamendo, two per cent of
    them broken. Ten clips of each are prepared with the synthetic codec and text encoder, as `plaudit prepare jamendo`
    does. A larger codec takes a larger part of the time; decoding, resampling and writing cost the same.
    """
    cores = processors()
    codec = loading.load_part(loading.CODECS, "synthetic", "auto")
    text = loading.load_part(loading.TEXT_ENCODERS, "synthetic", "auto")
    with tempfile.TemporaryDirectory() as place:
        folder = write_jamendo(Path(place), clips // PER_TRACK, PER_TRACK * SECONDS)
        before = peak_memory()
        clock, began, worked = PhaseTimer(), time.perf_counter(), time.process_time()
        listing = list_jamendo(folder.audio, folder.captions, folder.scores)
        entries = cut_clips(
            listing.entries, measure_durations(listing.entries), ClipSettings(per_track=PER_TRACK, seconds=SECONDS)
        )
        durations = time.perf_counter() - began
        shards = encode_corpus(
            ListedCorpus(listing.name, entries), codec, text, Path(place) / "shards", SECONDS, timer=clock
        )
        wall, processor = time.perf_counter() - began, time.process_time() - worked
    print(f"{len(shards)} clips of {len(folder.tracks)} tracks, {shards.stats['quarantined']} clips in quarantine")
    print(f"{len(folder.broken)} broken tracks: {', '.join(sorted(set(folder.broken.values())))}")
    print(f"{wall:.1f} s, {durations:.2f} s of it for listing and durations; {processor:.1f} s of processor time")
    print(f"{len(shards) / wall:.1f} clips/s on {cores} cores, {len(shards) / processor:.1f} clips/s per busy core")
    print(f"peak memory {peak_memory() / 2**20:.0f} MiB, {before / 2**20:.0f} MiB of it before")
    print("processor time by phase (without PyTorch's threads):")
    for name in ("decode", "resample", "encode", "captions", "write"):
        spent = clock.processor[name]
        print(f"  {name:9}{spent:7.2f} s {spent / processor:6.1%}")
    print("time of the encoding thread:")
    for name in ("encode", "wait for clips", "wait for disk", "captions"):
        print(f"  {name:15}{clock.wall[name]:7.2f} s {clock.wall[name] / (wall - durations):6.1%}")
    waits = clock.wall["wait for clips"] > clock.wall["encode"]
    print(f"limited by {'decoding and resampling' if waits else 'encoding'}")


if __name__ == "__main__":
    typer.run(main)

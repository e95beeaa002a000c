"""From a corpus to a shard set: every clip through the codec, every caption through the text encoder, once.

The corpus is cut into jobs, one a shard; an engine (plaudit.corpus.encoding) makes those that are missing, and a thread
writes each while the next is made. A shard is made whole or not at all and depends on its own clips alone, so that work
killed at any moment goes on at the first unfinished shard and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from torch import nn

from plaudit.assets import to_json
from plaudit.corpus.clock import Clock
from plaudit.corpus.encoding import Engine, Job, MadeShard, ShardMaker, Treatment
from plaudit.corpus.ledger import (
    INDEX,
    QUARANTINE,
    STATS,
    Approve,
    Facts,
    Ledger,
    Provenance,
    nothing_replaced,
    sole_writer,
)
from plaudit.corpus.manifest import Corpus, Entry, recordings
from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError
from plaudit.types import Codec, TextEncoder

__all__ = ["ShardSet", "encode_corpus", "stamp"]

SHARD_SIZE, BATCH_SIZE = 512, 16

Progress = Callable[[int, int], None]
"""Hears how many clips are done, of how many."""


def encode_corpus(
    corpus: Corpus,
    codec: Codec,
    text_encoder: TextEncoder,
    folder: Path,
    seconds: float,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    treatment: Treatment | None = None,
    engine: Engine | None = None,
    clock: Clock | None = None,
    provenance: Provenance | None = None,
    approve: Approve = nothing_replaced,
) -> ShardSet:
    """Encode `seconds` of every clip into `folder`, shorter ones padded with zeros, and open the result.

    A clip has N = floor(seconds * rate / hop) latent frames. Clips that can't be used go to `quarantine.jsonl` with the
    reason. What lies finished and intact in the folder, made from the same clips and models, is kept; the rest is
    remade, by `engine` where given, which must use the same models. provenance: recorded in the folder, which must hold
    nothing else; where its settings differ from those recorded, `approve` is asked. Raises CorpusError where no clip
    can be used, ids repeat, the disk is full, another process encodes into the folder, or it holds anything else.
    """
    frames = frames_of(codec, seconds)
    entries = corpus.entries()
    if len({entry.id for entry in entries}) < len(entries):
        raise CorpusError(f"corpus {corpus.name} repeats ids; make them unique")
    clock = clock or Clock()
    local = ShardMaker(
        corpus.load, codec, text_encoder, frames, batch_size, device, treatment=treatment, clock=clock
    )
    parts = cut_into_shards(entries, shard_size)
    with sole_writer(folder, provenance, approve) as ledger, torch.inference_mode():
        work = _Work(ledger, engine or local, clock, progress or (lambda done, total: None))
        facts = work.shards(_clip_jobs(local, parts), len(entries))
        bad = [line for shard in facts for line in shard["quarantine"]]
        places = _places(parts, {line["id"] for line in bad})
        if not places:
            first = f"; the first: {bad[0]['reason']}" if bad else ""
            raise CorpusError(f"none of the {len(entries)} clips of corpus {corpus.name} can be used{first}")
        captions = list(dict.fromkeys(entry.caption for entry, _, _ in places))
        work.shards(_caption_jobs(local, captions, shard_size))
        ledger.forget_others()
        about = {
            "corpus": corpus.name,
            "codec": codec.name,
            "text_encoder": text_encoder.name,
            "sample_rate": codec.sample_rate,
            "hop": codec.hop,
            "frames": frames,
            "latent_dim": codec.latent_dim,
            "clips": len(places),
            "quarantined": len(bad),
        }
        if treatment is not None:
            about["treatment"] = treatment.name
        ledger.save_file(STATS, to_json(about | _latent_statistics(facts), indent=2) + "\n")
        ledger.save_file(QUARANTINE, "".join(to_json(line) + "\n" for line in bad))
        ledger.save_file(INDEX, _index(places, captions))
    return ShardSet(folder, verify=False)


def frames_of(codec: Codec, seconds: float) -> int:
    """Latent frames of a clip; CorpusError where it is too short for one."""
    frames = int(seconds * codec.sample_rate / codec.hop + 1e-9)
    if frames < 1:
        raise CorpusError(f"{seconds:g} s is shorter than one latent frame of codec {codec.name}; ask for more")
    return frames


def cut_into_shards(entries: Sequence[Entry], size: int) -> list[list[Entry]]:
    """`size` entries a shard, in order; a recording is never cut apart, so a shard may end early or, of a recording
    with more clips than that, be larger."""
    parts: list[list[Entry]] = []
    for run in recordings(entries):
        if not parts or len(parts[-1]) + len(run) > size:
            parts.append([])
        parts[-1] += run
    return parts


@dataclass(frozen=True)
class _Work:
    ledger: Ledger
    engine: Engine
    clock: Clock
    progress: Progress

    def shards(self, keyed: Sequence[tuple[Job, str]], total: int | None = None) -> list[Facts]:
        """Make every shard that is not finished; the ledger's facts on each of them. `total` clips are told of."""
        known: dict[str, Facts] = {}
        missing: dict[str, tuple[Job, str]] = {}
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if total is not None:
                self.progress(done, total)

        for job, key in keyed:
            facts = self.ledger.finished(job.name, key)
            if facts is None:
                missing[job.name] = (job, key)
            else:
                known[job.name] = facts
                advance(len(job.entries))
        if missing:
            made = self.engine([job for job, _ in missing.values()], advance)
            known |= self._written(made, {name: key for name, (_, key) in missing.items()})
        return [known[job.name] for job, _ in keyed]

    def _written(self, made: Generator[MadeShard], keys: dict[str, str]) -> dict[str, Facts]:
        """Write each shard while the next is made; the facts on each."""
        known: dict[str, Facts] = {}

        def write(shard: MadeShard) -> None:
            facts = {"key": keys[shard.name]} | shard.facts
            with self.clock.phase("write"):
                self.ledger.save_shard(shard.name, shard.tensors, facts)
            known[shard.name] = facts

        with closing(made), ThreadPoolExecutor(1, "write") as writer:
            pending: Future[None] | None = None
            for shard in made:
                with self.clock.phase("wait for disk"):
                    if pending is not None:
                        pending.result()
                pending = writer.submit(write, shard)
            if pending is not None:
                pending.result()
        if unmade := sorted(keys.keys() - known.keys()):
            raise CorpusError(f"{len(unmade)} shards were not made, the first is {unmade[0]}; run this again")
        return known


def _clip_jobs(maker: ShardMaker, parts: list[list[Entry]]) -> list[tuple[Job, str]]:
    """A job for each part, and the key of all that its shard is made from."""
    codec = _identity(maker.codec)
    treated = [] if maker.treatment is None else [maker.treatment.name]
    jobs = []
    for number, part in enumerate(parts):
        stamps = {path: stamp(path) for path in {entry.path for entry in part}}
        clips = [
            (e.id, e.split, not e.caption.strip(), str(e.path), e.origin, stamps[e.path], *_unusual(e)) for e in part
        ]
        key = _digest(codec, maker.frames, maker.batch_size, clips, *treated)
        jobs.append((Job(f"latents-{number:05d}.safetensors", tuple(part)), key))
    return jobs


def _unusual(entry: Entry) -> tuple[float | str, ...]:
    """What most corpora don't use, so that their keys are those of before there was such a thing."""
    return (entry.start, entry.problem) if entry.start or entry.problem else ()


def _caption_jobs(maker: ShardMaker, captions: list[str], shard_size: int) -> list[tuple[Job, str]]:
    encoder = _identity(maker.text_encoder)
    jobs = []
    for number, start in enumerate(range(0, len(captions), shard_size)):
        part = captions[start : start + shard_size]
        job = Job(f"captions-{number:05d}.safetensors", captions=tuple(part))
        jobs.append((job, _digest(encoder, maker.batch_size, part)))
    return jobs


def _latent_statistics(facts: list[Facts]) -> dict[str, Any]:
    """Per-channel mean and std of latents drawn from the posteriors of the train split.

    A corpus without a train split (an evaluation reference) is measured over all its clips.
    """
    by_shard = [shard["sums"] for shard in facts]
    split = "train" if any("train" in sums for sums in by_shard) else None
    chosen = [s for sums in by_shard for name, s in sums.items() if split in (None, name)]
    frames = sum(s["frames"] for s in chosen)
    mean = np.sum([s["first"] for s in chosen], axis=0) / frames
    variance = np.sum([s["second"] for s in chosen], axis=0) / frames - mean**2
    # A channel that never moves would be divided by zero when standardized.
    std = np.sqrt(np.maximum(variance, 1e-8))
    return {"measured_over": split or "all", "latent_mean": mean.tolist(), "latent_std": std.tolist()}


def _places(parts: list[list[Entry]], bad: set[str]) -> list[tuple[Entry, int, int]]:
    """(entry, shard, row in the shard) of every clip that was kept."""
    places = []
    for shard, part in enumerate(parts):
        kept = [entry for entry in part if entry.id not in bad]
        places += [(entry, shard, row) for row, entry in enumerate(kept)]
    return places


def _index(places: list[tuple[Entry, int, int]], captions: list[str]) -> bytes:
    """`index.parquet`, one line per kept clip."""
    row_of = {caption: row for row, caption in enumerate(captions)}
    table = pyarrow.table(
        {
            "id": [entry.id for entry, _, _ in places],
            "source": [entry.source for entry, _, _ in places],
            "caption": [entry.caption for entry, _, _ in places],
            "caption_row": pyarrow.array([row_of[entry.caption] for entry, _, _ in places], pyarrow.int32()),
            "reward": pyarrow.array([entry.reward for entry, _, _ in places], pyarrow.float64()),
            "split": [entry.split for entry, _, _ in places],
            "shard": pyarrow.array([shard for _, shard, _ in places], pyarrow.int32()),
            "row": pyarrow.array([row for _, _, row in places], pyarrow.int32()),
        }
    )
    memory = io.BytesIO()
    pyarrow.parquet.write_table(table, memory)
    return memory.getvalue()


def _identity(model: Codec | TextEncoder) -> str:
    """Changes with the model's name and, where it shows them, with its weights."""
    digest = hashlib.sha256(model.name.encode())
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def stamp(path: Path | None) -> list[int]:
    """Changes with the file, so that one repaired after quarantine is encoded next time."""
    try:
        return [] if path is None else [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

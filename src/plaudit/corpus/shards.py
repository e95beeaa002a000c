"""From a corpus to a shard set: every clip through the codec, every caption through the text encoder, once.

A shard is made whole or not at all and depends on its own clips alone, so that work killed at any moment goes on at
the first unfinished shard and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor, nn

from plaudit.audio import SILENT_PEAK, check_finite, fit_length, resample
from plaudit.corpus.ledger import INDEX, QUARANTINE, STATS, Facts, Ledger, sole_writer
from plaudit.corpus.manifest import Corpus, Entry
from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import AudioError, CorpusError
from plaudit.types import Codec, TextEncoder

__all__ = ["ShardSet", "encode_corpus"]

Progress = Callable[[int, int], None]
"""Hears how many clips are done, of how many."""


@dataclass(frozen=True)
class _Work:
    """What every step of the encoding needs."""

    corpus: Corpus
    codec: Codec
    text_encoder: TextEncoder
    frames: int
    shard_size: int
    batch_size: int
    device: torch.device | str
    progress: Progress


def encode_corpus(
    corpus: Corpus,
    codec: Codec,
    text_encoder: TextEncoder,
    folder: Path,
    seconds: float,
    shard_size: int = 512,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> ShardSet:
    """Encode the first `seconds` of every clip into `folder`, shorter ones padded with zeros, and open the result.

    A clip has N = floor(seconds * rate / hop) latent frames. Clips that can't be used go to `quarantine.jsonl` with the
    reason. What lies finished and intact in the folder, made from the same clips and models, is kept; the rest is
    remade. Raises CorpusError where no clip can be used, ids repeat, the disk is full, or another process encodes
    into the folder.
    """
    frames = int(seconds * codec.sample_rate / codec.hop + 1e-9)
    if frames < 1:
        raise CorpusError(f"{seconds:g} s is shorter than one latent frame of codec {codec.name}; ask for more")
    entries = corpus.entries()
    if len({entry.id for entry in entries}) < len(entries):
        raise CorpusError(f"corpus {corpus.name} repeats ids; make them unique")
    work = _Work(
        corpus, codec, text_encoder, frames, shard_size, batch_size, device, progress or (lambda done, total: None)
    )
    with sole_writer(folder) as ledger, torch.inference_mode():
        facts = _encode_clips(work, entries, ledger)
        bad = [line for shard in facts for line in shard["quarantine"]]
        places = _places(entries, {line["id"] for line in bad}, shard_size)
        if not places:
            first = f"; the first: {bad[0]['reason']}" if bad else ""
            raise CorpusError(f"none of the {len(entries)} clips of corpus {corpus.name} can be used{first}")
        captions = list(dict.fromkeys(entry.caption for entry, _, _ in places))
        _encode_captions(work, captions, ledger)
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
        ledger.save_file(STATS, json.dumps(about | _latent_statistics(facts), indent=2) + "\n")
        ledger.save_file(QUARANTINE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in bad))
        ledger.save_file(INDEX, _index(places, captions))
    return ShardSet(folder, verify=False)


def _encode_clips(work: _Work, entries: list[Entry], ledger: Ledger) -> list[Facts]:
    """Make every latent shard that is not finished; the ledger's facts on each of them."""
    codec, all_facts = _identity(work.codec), []
    for number, start in enumerate(range(0, len(entries), work.shard_size)):
        part = entries[start : start + work.shard_size]
        name = f"latents-{number:05d}.safetensors"
        clips = [(e.id, e.split, not e.caption.strip(), str(e.path), e.origin, _stamp(e.path)) for e in part]
        key = _digest(codec, work.frames, work.batch_size, clips)
        facts = ledger.finished(name, key)
        if facts is None:
            tensors, made = _clip_shard(work, part, start, len(entries))
            facts = {"key": key} | made
            ledger.save_shard(name, tensors, facts)
        work.progress(start + len(part), len(entries))
        all_facts.append(facts)
    return all_facts


def _clip_shard(work: _Work, part: list[Entry], done: int, total: int) -> tuple[dict[str, Tensor], Facts]:
    """Posteriors of one shard's clips, what went wrong, and the sums that the statistics need.

    `done` of `total` clips came before.
    """
    means, stds, splits, quarantine = [], [], [], []
    batch: list[tuple[Entry, np.ndarray]] = []
    for position, entry in enumerate(part):
        try:
            batch.append((entry, _wave(work, entry)))
        except AudioError as error:
            quarantine.append(_quarantined(entry, str(error)))
        if len(batch) == work.batch_size or (batch and position == len(part) - 1):
            posterior = work.codec.encode(torch.from_numpy(np.stack([wave for _, wave in batch])).to(work.device))
            mean, std = posterior.mean.half().cpu(), posterior.std.half().cpu()
            for (clip, _), m, s in zip(batch, mean, std, strict=True):
                if m.isfinite().all() and s.isfinite().all():
                    means.append(m)
                    stds.append(s)
                    splits.append(clip.split)
                else:
                    quarantine.append(_quarantined(clip, f"codec {work.codec.name} makes latents that are not finite"))
            batch = []
            work.progress(done + position + 1, total)
    shape = (len(means), work.frames, work.codec.latent_dim)
    tensors = {
        "mean": torch.stack(means) if means else torch.zeros(shape, dtype=torch.float16),
        "std": torch.stack(stds) if stds else torch.zeros(shape, dtype=torch.float16),
    }
    if tensors["mean"].shape != shape:
        raise CorpusError(f"codec {work.codec.name} made latents of {list(tensors['mean'].shape)}, not {list(shape)}")
    return tensors, {"quarantine": quarantine, "sums": _sums(tensors, splits)}


def _wave(work: _Work, entry: Entry) -> np.ndarray:
    """The clip as the codec takes it: float32 [frames * hop]; AudioError where it can't be used."""
    if not entry.caption.strip():
        raise AudioError("the caption is empty; write one")
    wave, rate = work.corpus.load(entry)
    check_finite(wave, f"clip {entry.id}")
    samples = work.frames * work.codec.hop
    seconds = samples / work.codec.sample_rate
    # A long recording is not resampled to its end; the margin lets the filter see past the cut.
    wave = resample(wave[: int((seconds + 0.1) * rate)], rate, work.codec.sample_rate)
    wave = fit_length(wave, samples)
    if np.abs(wave).max() < SILENT_PEAK:
        raise AudioError(f"the first {seconds:g} s are silent; cut the silence off")
    return wave


def _quarantined(entry: Entry, reason: str) -> dict[str, str | None]:
    return {"id": entry.id, "path": None if entry.path is None else str(entry.path), "reason": reason}


def _sums(tensors: dict[str, Tensor], splits: list[str]) -> dict[str, dict[str, Any]]:
    """By split: how many latent frames, and per channel the sums of z and E[z^2] = mean^2 + std^2."""
    sums = {}
    for split in sorted(set(splits)):
        rows = torch.tensor([s == split for s in splits])
        mean, std = tensors["mean"][rows].double(), tensors["std"][rows].double()  # [n, N, C]
        sums[split] = {
            "frames": mean.shape[0] * mean.shape[1],
            "first": mean.sum((0, 1)).tolist(),
            "second": (mean**2 + std**2).sum((0, 1)).tolist(),
        }
    return sums


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


def _encode_captions(work: _Work, captions: list[str], ledger: Ledger) -> None:
    """Make every caption shard that is not finished: one row per distinct caption."""
    encoder = _identity(work.text_encoder)
    for number, start in enumerate(range(0, len(captions), work.shard_size)):
        part = captions[start : start + work.shard_size]
        name = f"captions-{number:05d}.safetensors"
        key = _digest(encoder, work.batch_size, part)
        if ledger.finished(name, key) is not None:
            continue
        batches = [part[i : i + work.batch_size] for i in range(0, len(part), work.batch_size)]
        features = [work.text_encoder.encode(batch) for batch in batches]
        tensors = {
            "tokens": torch.cat([f.tokens.half().cpu() for f in features]),
            "pooled": torch.cat([f.pooled.half().cpu() for f in features]),
        }
        if not all(t.isfinite().all() for t in tensors.values()):
            raise CorpusError(f"text encoder {work.text_encoder.name} makes features that are not finite in {name}")
        ledger.save_shard(name, tensors, {"key": key})


def _places(entries: list[Entry], bad: set[str], shard_size: int) -> list[tuple[Entry, int, int]]:
    """(entry, shard, row in the shard) of every clip that was kept."""
    places = []
    for shard, start in enumerate(range(0, len(entries), shard_size)):
        kept = [entry for entry in entries[start : start + shard_size] if entry.id not in bad]
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


def _stamp(path: Path | None) -> list[int]:
    """Changes with the file, so that one repaired after quarantine is encoded next time."""
    try:
        return [] if path is None else [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

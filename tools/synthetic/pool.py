"""Synthetic clips rendered once to a memory-mapped file, for the trainers of synthetic weights."""

from __future__ import annotations

import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plaudit.processors import processors
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus


@dataclass(frozen=True)
class Pool:
    """waves[i] is the audio of clips[i]: int16 [n, T] at the synthetic sample rate. `name` identifies the pool."""

    name: str
    clips: list[SyntheticClip]
    waves: np.ndarray

    def batch(self, rows: np.ndarray, starts: np.ndarray | None = None, length: int | None = None) -> Tensor:
        """Waveforms of `rows` as float32 [B, T], or the crops of `length` samples from `starts`."""
        if starts is None or length is None:
            return torch.from_numpy(self.waves[rows].astype(np.float32) / 32767)
        crops = [self.waves[row, start : start + length] for row, start in zip(rows, starts, strict=True)]
        return torch.from_numpy(np.stack(crops).astype(np.float32) / 32767)


def rendered_pool(corpus: SyntheticCorpus, folder: Path, name: str) -> Pool:
    """The corpus as a Pool, rendered to a file in `folder` unless it exists.

    Its name has a checksum of the first clips, so that clips of an earlier version of the world, or with other flaws,
    are not mistaken for these.
    """
    first = _render(corpus, range(min(32, corpus.size)))
    path = folder / f"{name}-{corpus.size}-{corpus.seconds:g}-{corpus.seed}-{zlib.crc32(first.tobytes()):08x}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        length = round(corpus.seconds * corpus.rate)
        out = np.lib.format.open_memmap(partial, "w+", np.int16, (corpus.size, length))
        with ProcessPoolExecutor(processors()) as workers:
            chunks = [range(i, min(i + 64, corpus.size)) for i in range(0, corpus.size, 64)]
            for chunk, waves in zip(chunks, workers.map(_render, [corpus] * len(chunks), chunks), strict=True):
                out[chunk.start : chunk.stop] = waves
        out.flush()
        partial.replace(path)
    return Pool(path.stem, corpus.clips, np.load(path, mmap_mode="r"))


def _render(corpus: SyntheticCorpus, rows: range) -> np.ndarray:
    return np.stack([np.round(corpus.render(corpus.clips[i]) * 32767).astype(np.int16) for i in rows])

"""A small codec, text encoder and corpora that are real but cost nothing."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plaudit.audio import write_wav
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.manifest import Entry, load_clips
from plaudit.corpus.shard_set import ShardProvenance
from plaudit.corpus.shards import ShardEncoder, encode_corpus
from plaudit.types import Posterior, TextFeatures


@dataclass
class BandCodec:
    """The first bands of each frame's orthonormal cosine transform."""

    name: str = "bands"
    sample_rate: int = 8000
    hop: int = 80
    latent_dim: int = 6
    scale: float = 1.0

    def __post_init__(self) -> None:
        n, k = torch.arange(self.hop) + 0.5, torch.arange(self.latent_dim)
        self.basis = torch.cos(torch.pi / self.hop * n[:, None] * k) * (2 / self.hop) ** 0.5  # [hop, C]

    def encode(self, wave: Tensor) -> Posterior:
        mean = self.scale * wave.reshape(len(wave), -1, self.hop) @ self.basis
        return Posterior(mean, 0.1 + 0.1 * mean.abs())

    def decode(self, latents: Tensor) -> Tensor:
        return (latents @ self.basis.T).flatten(1)


@dataclass
class HashEncoder:
    """Features from a hash of the words."""

    name: str = "hash"
    length: int = 3
    token_dim: int = 4
    pooled_dim: int = 5

    def encode(self, prompts: list[str]) -> TextFeatures:
        return TextFeatures(
            torch.stack([self._numbers(p, self.length * self.token_dim) for p in prompts]).unflatten(1, (3, 4)),
            torch.stack([self._numbers(p, self.pooled_dim) for p in prompts]),
        )

    def _numbers(self, prompt: str, count: int) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def write_folder(folder: Path, clips: int, seconds: float = 1.0, rate: int = 8000) -> FolderCorpus:
    """A folder of short noises; every third clip shares its caption with another; every second has a reward."""
    dice = np.random.default_rng(5)
    rows = ["file,caption,reward"]
    for i in range(clips):
        wave = 0.1 * (1 + i % 4) * dice.standard_normal(round(seconds * rate))
        write_wav(folder / f"{i:03d}.wav", wave.astype(np.float32), rate)
        rows.append(f"{i:03d}.wav,caption {i - (i % 3 == 2)},{i / 8 if i % 2 else ''}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return FolderCorpus(folder, Path("clips.csv"), reward_column="reward", validation=0.2, test=0.2)


TOY = ShardProvenance({"data set": "toy"}, {"seconds": 1.0})


def encode(corpus: FolderCorpus, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Encode as the tests do, in small shards and batches."""
    encode_corpus(
        corpus, BandCodec(), HashEncoder(), folder, 1.0, shard_size=4, batch_size=2, progress=progress, provenance=TOY
    )


def maker(slowness: float = 0.0, pids: Path | None = None) -> ShardEncoder:
    """A shard encoder; optionally slow, and recording its process id in the folder `pids`."""
    if pids is not None:
        (pids / str(os.getpid())).touch()

    def load(clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        time.sleep(slowness)
        return load_clips(clips, seconds)

    return ShardEncoder(load, BandCodec(), HashEncoder(), 100, batch_size=2)


if __name__ == "__main__":  # python -m tests.corpus.toy FOLDER OUTPUT, in a process that a test kills
    source, output = map(Path, sys.argv[1:])
    slowly = FolderCorpus(source, Path("clips.csv"), reward_column="reward", validation=0.2, test=0.2)
    encode(slowly, output, progress=lambda done, total: time.sleep(0.02))

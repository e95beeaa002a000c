"""Shard sets of any shapes, made of noise, without a codec or a text encoder behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plaudit.corpus.manifest import Entry
from plaudit.corpus.shards import ShardSet, encode_corpus
from plaudit.types import Posterior, TextFeatures


@dataclass
class NoiseCorpus:
    """Clips of noise, two of each caption, every tenth for validation."""

    clips: int
    samples: int
    name: str = "noise"

    def entries(self) -> list[Entry]:
        splits = ["validation" if i % 10 == 9 else "train" for i in range(self.clips)]
        return [Entry(f"{i:05d}", f"caption {i // 2}", splits[i], "noise", i / 10) for i in range(self.clips)]

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        dice = [np.random.default_rng(int(clip.id)) for clip in clips]
        return [one.standard_normal(self.samples).astype(np.float32) for one in dice], 100


@dataclass
class NoiseCodec:
    """Samples are latents: `latent_dim` of them make a frame."""

    latent_dim: int
    name: str = "noise"
    sample_rate: int = 100

    @property
    def hop(self) -> int:
        return self.latent_dim

    def encode(self, wave: Tensor) -> Posterior:
        latents = wave.unflatten(1, (-1, self.latent_dim))
        return Posterior(latents, 0.1 + 0.1 * latents.abs())

    def decode(self, latents: Tensor) -> Tensor:
        return latents.flatten(1)


@dataclass
class NoiseText:
    """Features drawn from the caption's number."""

    length: int
    token_dim: int
    pooled_dim: int
    name: str = "noise"

    def encode(self, prompts: list[str]) -> TextFeatures:
        tokens, pooled = [], []
        for prompt in prompts:
            generator = torch.Generator().manual_seed(int(prompt.split()[-1]) if prompt else 10**6)
            tokens.append(torch.randn(self.length, self.token_dim, generator=generator))
            pooled.append(torch.randn(self.pooled_dim, generator=generator))
        return TextFeatures(torch.stack(tokens), torch.stack(pooled))


def tiny_shards(folder: Path, clips: int = 60) -> ShardSet:
    """A shard set that fits `tests.backbone.tiny.tiny_config`: 11 frames of 5 channels, 7 tokens of 12, pooled 10."""
    corpus = NoiseCorpus(clips, samples=55)
    return encode_corpus(corpus, NoiseCodec(5), NoiseText(7, 12, 10), folder, 0.55, shard_size=8)

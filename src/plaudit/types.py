"""The few types that several packages share: text features, posteriors, votes, and the interfaces of frozen models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextFeatures:
    """Features of a batch of prompts.

    tokens: [B, L, D], one row per token position, padding included.
    pooled: [B, P], one vector per prompt.
    """

    tokens: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def rows(self, index: Tensor) -> TextFeatures:
        """The features of the prompts at `index` [M], in that order."""
        return TextFeatures(self.tokens[index], self.pooled[index])

    @classmethod
    def cat(cls, parts: Sequence[TextFeatures]) -> TextFeatures:
        """The features of several batches as one."""
        return cls(torch.cat([part.tokens for part in parts]), torch.cat([part.pooled for part in parts]))

    def to(self, device: torch.device | str) -> TextFeatures:
        """The same features on another device."""
        return TextFeatures(self.tokens.to(device), self.pooled.to(device))


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents: mean and std, both [B, N, C]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def cat(cls, parts: Sequence[Posterior]) -> Posterior:
        """The posteriors of several batches as one."""
        return cls(torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts]))

    def to(self, device: torch.device | str) -> Posterior:
        """The same posterior on another device."""
        return Posterior(self.mean.to(device), self.std.to(device))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, mean + std * noise: [B, N, C]."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)


class Codec(Protocol):
    """Waveform <-> latents. One latent frame stands for `hop` samples; `frame_rate` is sample_rate / hop.

    A codec with an attribute `decodes_in_bf16` that is true is decoded under bfloat16 autocast where sampling is.
    """

    name: str
    sample_rate: int
    hop: int
    latent_dim: int

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T] at `sample_rate`, T a multiple of `hop` -> posterior over [B, T / hop, latent_dim]."""

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * hop]."""


class TextEncoder(Protocol):
    """Prompts -> features that condition the backbone."""

    name: str
    length: int
    token_dim: int
    pooled_dim: int

    def encode(self, prompts: list[str]) -> TextFeatures:
        """tokens [B, length, token_dim], pooled [B, pooled_dim]."""


class AudioEmbedder(Protocol):
    """A frozen audio encoder (such as MERT): waveforms -> one vector each."""

    name: str
    sample_rate: int
    dim: int

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at `sample_rate` -> [B, dim]."""


class Embedder(AudioEmbedder, Protocol):
    """A frozen encoder of audio and text into one space (such as CLAP); every embedding has unit norm."""

    def text(self, prompts: list[str]) -> Tensor:
        """[B, dim], unit norm."""


class Reward(Protocol):
    """Predicts what people prefer. Only differences between scores for the same prompt are meaningful.

    `score` is all that is required. With an attribute `identity`, a text that changes whenever scores do, scores are
    cached and may be saved as a reference.
    """

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        """One score per clip [B]: waves are [T] each at `rate` Hz; an empty prompt means no prompt."""


@dataclass(frozen=True)
class Vote:
    """One listener's choice between clips `a` and `b` of the same prompt.

    `both_bad` is Music Arena's fourth answer: neither clip is any good.
    """

    id: str
    prompt: str
    a: str
    b: str
    winner: Literal["a", "b", "tie", "both_bad"]
    system_a: str
    system_b: str
    source: str
    listener: str

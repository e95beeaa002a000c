"""A text-to-music model small enough for tests: real network, sampler and folder around a toy codec and reader."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from plaudit.generate.model import ModelConfig, TextToMusic
from plaudit.types import Posterior, TextFeatures
from tests.backbone.tiny import tiny_model, wake


class FoldingCodec:
    """Latents are the waveform itself, five steps of it to a frame, each of which lasts 20 samples."""

    name = "folding"
    sample_rate = 1000
    hop = 100
    latent_dim = 5

    def encode(self, wave: Tensor) -> Posterior:
        mean = wave.unflatten(1, (-1, self.latent_dim, self.hop // self.latent_dim)).mean(-1)
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, latents: Tensor) -> Tensor:
        return latents.flatten(1).repeat_interleave(self.hop // self.latent_dim, 1)


class HashedText:
    """Noise seeded by the prompt; records the prompts of each call."""

    name = "hashed"
    length = 7
    token_dim = 12
    pooled_dim = 10

    def __init__(self) -> None:
        self.read: list[list[str]] = []

    def encode(self, prompts: list[str]) -> TextFeatures:
        self.read.append(prompts)
        rows = [torch.Generator().manual_seed(zlib.crc32(prompt.encode())) for prompt in prompts]
        return TextFeatures(
            torch.stack([torch.randn(self.length, self.token_dim, generator=g) for g in rows]),
            torch.stack([torch.randn(self.pooled_dim, generator=g) for g in rows]),
        )


@torch.no_grad()
def tiny_music(injection: str = "input_add") -> TextToMusic:
    """An untrained model of 1.3 seconds at 1000 Hz conditioned on text and, depending on the injection, a score."""
    backbone = wake(tiny_model(injection)).eval()
    generator = torch.Generator().manual_seed(4)
    for name, parameter in backbone.named_parameters():
        if name.startswith("score.") and not parameter.any():
            parameter.normal_(std=0.1, generator=generator)
    backbone.latent_mean.copy_(torch.arange(5.0))
    backbone.latent_std.fill_(2.0)
    config = ModelConfig(backbone.config, "folding", "hashed", 1.3, "Apache-2.0", {"stage": "test"})
    return TextToMusic(backbone, FoldingCodec(), HashedText(), config)

"""A codec: the discrete cosine transform of every frame, of which the lowest frequencies are kept.

Name it in a recipe or in a model folder's config.json by its file:

    models: {codec: examples/codec.py:CosineCodec}

An installed package can name it instead, as an entry point of the group `plaudit.codecs`. Give what is named there a
new name when its latents change: encoded corpora are recognized by it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plaudit.types import Posterior


class CosineCodec:
    """Frames of 512 samples <-> their 64 lowest cosine coefficients (up to 1 kHz), which have about unit variance.

    A learned codec would be an nn.Module with the same members, and load its weights in __init__; it moves to the GPU
    with the model. The name is called without arguments, so a function that returns a codec does as well.
    """

    name = "cosine-64"
    sample_rate = 16_000
    hop = 512
    latent_dim = 64
    scale = 4.0

    def __init__(self) -> None:
        time, frequency = torch.arange(self.hop) + 0.5, torch.arange(self.latent_dim)
        basis = torch.cos(math.pi / self.hop * time[None] * frequency[:, None]) * math.sqrt(2 / self.hop)
        basis[0] /= math.sqrt(2)  # orthonormal: [latent_dim, hop]
        self.basis = basis

    def encode(self, wave: Tensor) -> Posterior:
        """wave [B, T], T a multiple of hop -> posterior over [B, T / hop, latent_dim]."""
        frames = wave.unflatten(1, (-1, self.hop))
        mean = frames @ self.basis.to(wave).T * self.scale
        return Posterior(mean, torch.full_like(mean, 1e-3))

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> wave [B, N * hop]."""
        return (latents / self.scale @ self.basis.to(latents)).flatten(1)

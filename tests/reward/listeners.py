"""Small real encoders for the reward's tests: a random projection of a spectrum, and of hashed words."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


class SpectrumEmbedder:
    """Mean log-spectrum of 256-sample frames through a fixed random matrix; unit norm."""

    sample_rate = 8000

    def __init__(self, name: str, dim: int, seed: int) -> None:
        self.name, self.dim = name, dim
        self.matrix = torch.randn(129, dim, generator=torch.Generator().manual_seed(seed)) / 12

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] -> [B, dim]."""
        frames = wave.unfold(-1, 256, 128)
        spectrum = torch.fft.rfft(frames * torch.hann_window(256)).abs().square().add(1e-4).log().mean(1)
        return torch.nn.functional.normalize(spectrum @ self.matrix, dim=-1)

    def text(self, prompts: list[str]) -> Tensor:
        """Unit vectors [B, dim] that depend on each prompt alone."""
        rows = [torch.randn(self.dim, generator=torch.Generator().manual_seed(zlib.crc32(p.encode()))) for p in prompts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def clip(seed: int, seconds: float = 0.5, rate: int = 8000) -> Tensor:
    """A tone of some pitch in some noise, [T]."""
    generator = torch.Generator().manual_seed(seed)
    pitch, noise = 100 + 2000 * torch.rand(2, generator=generator)
    time = torch.arange(round(seconds * rate)) / rate
    return 0.3 * torch.sin(2 * torch.pi * pitch * time) + noise / 2e4 * torch.randn(time.shape, generator=generator)

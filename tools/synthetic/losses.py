"""Losses that the synthetic codec is trained with: multi-resolution STFT distance and KL divergence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plaudit.synthetic.codec import magnitude

RESOLUTIONS = (2048, 1024, 512)
"""Window lengths in samples, each with a hop of a quarter: at 16 kHz, 128 ms for pitch down to 32 ms for onsets."""

FLOOR = 1e-4
"""Added to magnitudes before the logarithm: -80 dB under a full-scale sine, below which all is silence."""


def stft_distance(estimate: Tensor, target: Tensor, resolutions: Sequence[int] = RESOLUTIONS) -> Tensor:
    """Multi-resolution STFT distance of waveforms [B, T], one value per clip [B]; 0 for equal magnitudes.

    At each resolution: spectral convergence ||X - Y|| / ||Y|| plus the mean of |log X - log Y|, on magnitudes scaled
    so that a full-scale sine has 1; then the mean over resolutions. Yamamoto et al., "Parallel WaveGAN"
    (arXiv 1910.11480), equations 3 to 6; the resolutions, the scale and the floor are ours. T must exceed 3/4 of
    the longest window. Computed in float32 whatever the autocast, and differentiable.
    """
    with torch.autocast(estimate.device.type, enabled=False):
        estimate, target = estimate.float(), target.float()
        return torch.stack([_at_resolution(estimate, target, n_fft) for n_fft in resolutions]).mean(0)


def _at_resolution(estimate: Tensor, target: Tensor, n_fft: int) -> Tensor:
    return magnitude_distance(magnitude(estimate, n_fft, n_fft // 4), magnitude(target, n_fft, n_fft // 4))


def magnitude_distance(x: Tensor, y: Tensor) -> Tensor:
    """Spectral convergence plus the mean of |log x - log y|, of magnitudes [B, N, K] each: one value per clip [B]."""
    # A silent target has no scale of its own: the floor is its scale.
    scale = y.square().mean((1, 2)).sqrt() + FLOOR
    convergence = ((x - y).square().mean((1, 2)) + 1e-20).sqrt() / scale
    return convergence + ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean((1, 2))


def gaussian_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence of the diagonal Gaussian [B, N, C] from the standard one, averaged over every element: scalar."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()

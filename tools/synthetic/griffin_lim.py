"""Griffin-Lim: a waveform from magnitudes, without learning. The baseline of a learned decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.codec.mel import MelSettings, inverse_spectrum, mel_energy, slaney_filters, spectrum


def griffin_lim(magnitudes: Tensor, n_fft: int, hop: int, iterations: int = 32) -> Tensor:
    """Magnitudes [B, N, n_fft / 2 + 1] of a Hann-windowed spectrum -> wave [B, N * hop] whose spectrum is near them.

    Griffin & Lim (IEEE TASSP 1984) with the momentum of Perraudin et al. (WASPAA 2013), 0.99; phases start at random
    from a fixed seed.
    """
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(magnitudes.shape, generator=generator).to(magnitudes) * 2 * torch.pi
    phase, previous = torch.polar(torch.ones_like(angles), angles), torch.zeros_like(magnitudes)
    for _ in range(iterations):
        rebuilt = spectrum(inverse_spectrum(magnitudes * phase, n_fft, hop), n_fft, hop)
        ahead = rebuilt - 0.99 / 1.99 * previous
        phase, previous = ahead / ahead.abs().clamp(min=1e-12), rebuilt
    return inverse_spectrum(magnitudes * phase, n_fft, hop)


def magnitudes_from_mel(energy: Tensor, settings: MelSettings, iterations: int = 200) -> Tensor:
    """Band energies [B, bands, N] -> the non-negative magnitudes [B, N, n_fft / 2 + 1] that explain them best.

    Least squares by multiplicative updates (Lee & Seung, NIPS 2000), which keep every value at or above zero.
    """
    filters = slaney_filters(settings).to(energy)  # [bands, bins]
    target = energy.transpose(1, 2) @ filters  # [B, N, bins]
    magnitudes = target.clone()
    for _ in range(iterations):
        magnitudes = magnitudes * target / (magnitudes @ filters.T @ filters).clamp(min=1e-12)
    return magnitudes


def from_true_mel(wave: Tensor, settings: MelSettings, iterations: int = 32) -> Tensor:
    """wave [B, T] -> [B, T // hop * hop], rebuilt by Griffin-Lim from its mel spectrogram."""
    magnitudes = magnitudes_from_mel(mel_energy(wave, settings), settings)
    return griffin_lim(magnitudes, settings.n_fft, settings.hop, iterations)

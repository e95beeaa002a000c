"""Short-time spectra and log-mel spectrograms in which N frames stand for exactly N * hop samples.

So latents, mel frames and waveforms line up, without an extra frame at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def frames(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """wave [B, T], longer than n_fft - hop, reflected at both ends -> frames [B, T // hop, n_fft], not windowed."""
    pad = (n_fft - hop) // 2
    return F.pad(wave[:, None], (pad, pad), mode="reflect")[:, 0].unfold(1, n_fft, hop)


def spectrum(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """Short-time spectrum of wave [B, T] under a Hann window -> complex [B, T // hop, n_fft / 2 + 1]."""
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    return torch.fft.rfft(frames(wave, n_fft, hop) * window)


def inverse_spectrum(bins: Tensor, n_fft: int, hop: int) -> Tensor:
    """Complex [B, N, n_fft / 2 + 1] -> the wave [B, N * hop] whose Hann-windowed spectrum is nearest to it."""
    window = torch.hann_window(n_fft, device=bins.device)
    return overlap_add(torch.fft.irfft(bins) * window, hop) / overlap_of(window.square(), bins.shape[1], hop)


def overlap_add(parts: Tensor, hop: int) -> Tensor:
    """Frames [B, N, n_fft], n_fft a multiple of `hop`, summed where they belong -> [B, N * hop].

    Samples before the first or after the last of these are dropped.
    """
    batch, count, n_fft = parts.shape
    overlap = n_fft // hop
    pieces = parts.reshape(batch, count, overlap, hop)
    out = parts.new_zeros(batch, count + overlap - 1, hop)
    for i in range(overlap):
        out[:, i : i + count] += pieces[:, :, i]
    pad = (n_fft - hop) // 2
    return out.view(batch, -1)[:, pad : pad + count * hop]


def overlap_of(window: Tensor, count: int, hop: int) -> Tensor:
    """The sum of `count` windows [n_fft] at every sample: [1, count * hop]. Dividing by it undoes the overlap."""
    return overlap_add(window.expand(1, count, -1), hop)


@dataclass(frozen=True)
class MelSettings:
    """A log-mel spectrogram: `bands` triangular filters up to half of `sample_rate`, and the logarithm's base."""

    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    log: Literal["natural", "base 10"]


MEL_44K = MelSettings(44100, 2048, 512, 128, "natural")
"""Input of MMAudio's 44.1 kHz mel VAE, and of BigVGAN v2."""

MEL_16K = MelSettings(16000, 1024, 256, 80, "base 10")
"""Input of MMAudio's 16 kHz mel VAE, and of its vocoder."""


def mel_energy(wave: Tensor, settings: MelSettings) -> Tensor:
    """wave [B, T] in -1..1 (clamped), T > n_fft - hop -> band energies [B, bands, T // hop], before the logarithm.

    The magnitude is sqrt(re^2 + im^2 + 1e-9), as the published front-ends have it.
    """
    bins = spectrum(wave.clamp(-1, 1), settings.n_fft, settings.hop)
    magnitude = (bins.real.square() + bins.imag.square() + 1e-9).sqrt()
    return (magnitude @ slaney_filters(settings).to(wave).T).transpose(1, 2)


def log_mel(wave: Tensor, settings: MelSettings) -> Tensor:
    """The logarithm of `mel_energy`, floored at 1e-5: [B, bands, T // hop]."""
    energy = mel_energy(wave, settings).clamp(min=1e-5)
    return energy.log() if settings.log == "natural" else energy.log10()


@lru_cache(maxsize=8)
def slaney_filters(settings: MelSettings) -> Tensor:
    """Triangles of unit area on Slaney's mel scale, as librosa's by default: [bands, n_fft / 2 + 1], float32."""
    from transformers.audio_utils import mel_filter_bank  # transformers takes seconds to import

    rate = settings.sample_rate
    filters = mel_filter_bank(settings.n_fft // 2 + 1, settings.bands, 0, rate / 2, rate, "slaney", "slaney")
    with torch.inference_mode(False):  # training may use what evaluation has cached
        return torch.from_numpy(filters.T).float()

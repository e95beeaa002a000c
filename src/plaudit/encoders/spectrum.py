"""Spectra and features of them: mel and semitone bands, onset strength, autocorrelation. All differentiable."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.errors import AudioError

FRAMES = 2048
"""Frames whose spectra are computed at once (ours)."""


def checked(wave: Tensor, rate: int, seconds: float = 1.0) -> Tensor:
    """`wave` as float32 [B, T]; AudioError where it is not [B, T], is empty, too short, or not finite."""
    if wave.ndim != 2 or wave.shape[0] == 0:
        raise AudioError(f"expected waveforms [batch, samples] with at least one clip, got shape {tuple(wave.shape)}")
    if wave.shape[1] < seconds * rate:
        raise AudioError(f"the audio lasts {wave.shape[1] / rate:.2f} s; at least {seconds:g} s are needed")
    if not bool(torch.isfinite(wave).all()):
        raise AudioError("the audio holds NaN or infinite samples; decode or generate it again")
    return wave.float()


def power(wave: Tensor, window: int, hop: int, bins: int | None = None) -> Tensor:
    """Power spectrogram of wave [B, T]: [B, window / 2 + 1, T // hop], frames centred on multiples of `hop`.

    Only the lowest `bins` rows where given. A full-scale sine peaks at 1/4 (the Hann window is scaled to unit sum).
    """
    hann = torch.hann_window(window, device=wave.device)
    padded = F.pad(wave, (window // 2, window // 2), mode="reflect")
    count = wave.shape[1] // hop
    parts = []
    for first in range(0, count, FRAMES):  # complex spectra of many frames at once would need most of the memory
        piece = padded[:, first * hop : (min(first + FRAMES, count) - 1) * hop + window]
        frames = torch.stft(piece, window, hop, window=hann / hann.sum(), center=False, return_complex=True)[:, :bins]
        parts.append(frames.real.square() + frames.imag.square())  # abs() takes a root that the square undoes
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def mel_edges(low: float, high: float, bands: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Edges and centres in Hz of `bands` filters that lie evenly on HTK's mel scale: [bands + 2]."""
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    return 700 * (10 ** (torch.linspace(lowest, highest, bands + 2, dtype=dtype) / 2595) - 1)


def mel_filters(rate: int, window: int, bands: int, low: float = 30.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Triangles of unit peak on HTK's mel scale, from `low` Hz to half the rate: [bands, window / 2 + 1], float32.

    None is narrower than a bin on either side, or it could miss every bin; this is why it is not transformers' bank.
    """
    edges, width = mel_edges(low, rate / 2, bands, dtype), rate / window
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=dtype)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2]).clamp(min=width)[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1]).clamp(min=width)[:, None]
    return torch.minimum(rise, fall).clamp(0, 1).float()


def semitone_filters(rate: int, window: int, lowest: int = 36, bands: int = 60) -> Tensor:
    """Filters centred on MIDI pitches lowest, lowest + 1, ...: [bands, window / 2 + 1].

    Gaussian in pitch, 0.35 semitones wide but never narrower than a bin of the spectrum.
    """
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64).clamp(min=1e-3)
    pitch = 69 + 12 * torch.log2(bins / 440)
    centres = torch.arange(lowest, lowest + bands, dtype=torch.float64)
    bin_width = 12 / math.log(2) * (rate / window) / (440 * 2 ** ((centres - 69) / 12))  # semitones per bin
    sigma = torch.maximum(torch.full_like(centres, 0.35), 0.6 * bin_width)
    return torch.exp(-0.5 * ((pitch - centres[:, None]) / sigma[:, None]).square()).float()


def log_bands(spectrum: Tensor, filters: Tensor, floor: float = 1e-8) -> Tensor:
    """log10 of the energy in each band: [B, F, N] and [bands, F] -> [B, bands, N]; silence is log10(floor)."""
    return (filters @ spectrum).clamp(min=floor).log10()


def low_quantile(values: Tensor, fraction: float) -> Tensor:
    """The linearly interpolated quantile of values [..., N] at a small `fraction`: [...], without a full sort."""
    position = fraction * (values.shape[-1] - 1)
    below = int(position)
    lowest = values.topk(min(below + 2, values.shape[-1]), dim=-1, largest=False).values
    return torch.lerp(lowest[..., below], lowest[..., -1], position - below)


def onset_strength(bands: Tensor, groups: int) -> Tensor:
    """The rise of loudness of each group of neighbouring bands from frame to frame: [B, bands, N] -> [B, groups, N]."""
    rise = (bands[..., 1:] - bands[..., :-1]).clamp(min=0)
    return torch.nn.functional.pad(rise, (1, 0)).unflatten(1, (groups, -1)).mean(2)


def autocorrelation(signal: Tensor, lags: int) -> Tensor:
    """Correlation of signal [..., N] with itself, 1..lags frames later: [..., lags], 1 for a perfect repeat.

    The mean is taken out, and each lag is weighted by how many pairs it has; lags beyond the signal give 0.
    """
    length = signal.shape[-1]
    centred = signal - signal.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * (length + lags))
    products = torch.fft.irfft(spectrum.abs().square(), 2 * (length + lags))[..., : lags + 1]
    pairs = (length - torch.arange(1, lags + 1, device=signal.device)).clamp(min=length // 4 + 1) / length
    return products[..., 1:] / pairs / (products[..., :1] + 1e-6)

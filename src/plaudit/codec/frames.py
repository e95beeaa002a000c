"""Waveform <-> overlapping frames, without centring: frame n is centred on sample (n + 1/2) hop.

N frames stand for exactly N * hop samples, so that latents, mel frames and waveforms line up without an extra
frame at the end. Everything in this package that looks at a spectrum cuts and joins its frames here.
"""

from __future__ import annotations

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

    What lies before the first or after the last of these samples is dropped.
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
    """What `count` windows [n_fft] sum to at every sample: [1, count * hop]. Dividing by it undoes the overlap."""
    return overlap_add(window.expand(1, count, -1), hop)

"""Oscillators and noise bands -> waveform: what the embedded codec's decoder plays on.

Every bin of a long-window inverse FFT is an oscillator whose phase is the running sum of its frequency, so tones keep
their pitch and never jump; every bin of a short-window inverse FFT is a band of noise, for drums, hiss and onsets.
Additive synthesis by inverse FFT is from Rodet & Depalle (AES 1992), tones plus noise from Serra & Smith (CMJ 1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.codec.frames import inverse_spectrum, overlap_add, overlap_of, spectrum

HOP = 256
"""Samples between frames."""

LONG, SHORT = 1024, 256
"""Windows of the oscillators and of the noise bands. The noise has its own hop, a quarter of its window."""

OSCILLATORS, BANDS = LONG // 2, SHORT // 2 + 1


@dataclass(frozen=True)
class Controls:
    """What to play for N frames: loudness and bend of every oscillator, and of every band the loudness of noise.

    loudness: [B, N, 512], log amplitude of the sine at bin 1, 2, ... of a 1024-point FFT.
    bend: [B, N, 512], how far its pitch lies above the bin, in bins (15.6 Hz at 16 kHz), within -1..1.
    noise: [B, 4N, 129], log standard deviation that the noise would have if every band had this one's loudness.
    """

    loudness: Tensor
    bend: Tensor
    noise: Tensor


def play(controls: Controls, phase: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    """The waveform [B, N * 256] of N frames; the same controls always give the same wave.

    phase: [B, N, 512], of the oscillators where they don't begin here; see `phases`. noise: [4N, 129], what the bands
    are filled with; see `noise_frames`.
    """
    phase = phases(controls.bend) if phase is None else phase
    return oscillators(controls.loudness, phase) + noise_bands(controls.noise, noise)


def phases(bend: Tensor) -> Tensor:
    """How far bends [B, N, 512] have turned the oscillators at each frame, beyond their bins' own pitch: radians."""
    return torch.cumsum(math.pi / 2 * bend, 1)


def oscillators(loudness: Tensor, phase: Tensor) -> Tensor:
    """Loudness and turned phase of 512 sines, [B, N, 512] each -> wave [B, N * 256]; see Controls and `phases`.

    Amplitudes and phases are the sines' at the centres of the frames, which cross-fade by their Hann windows. Within a
    frame a sine keeps its bin's own pitch, so one bent by x bins is softer by Hann's lobe: 0.85 at a half, 0.5 at one.
    """
    count, device = loudness.shape[1], loudness.device
    step = torch.arange(1, OSCILLATORS + 1, device=device) * (math.pi / 2)
    at = torch.arange(count, device=device)[:, None] % 4  # a bin's own phase repeats every four hops
    phase = phase + at * step + START.to(device)
    amplitude = loudness.clamp(max=1).exp() * (LONG / 2)
    bins = F.pad(torch.polar(amplitude, phase), (1, 0))
    # An inverse FFT counts phase from the frame's start; alternating signs move it to the centre.
    sign = 1 - 2 * (torch.arange(OSCILLATORS + 1, device=device) % 2)
    window = torch.hann_window(LONG, device=device)
    return overlap_add(torch.fft.irfft(bins * sign) * window, HOP) / overlap_of(window, count, HOP)


def noise_bands(loudness: Tensor, noise: Tensor | None = None) -> Tensor:
    """Loudness [B, 4N, 129] of bands filled with `noise` [4N, 129] -> wave [B, N * 256]; see Controls."""
    noise = noise_frames(0, loudness.shape[1]) if noise is None else noise
    return inverse_spectrum(noise.to(loudness.device) * loudness.clamp(max=1).exp(), SHORT, SHORT // 4)


def noise_frames(first: int, count: int, period: int | None = None) -> Tensor:
    """Spectra of the noise from frame `first` on: complex [count, 129], the same for every clip.

    period: frames of a loop, after which the noise begins anew. Where it does, and where its table ends, its level
    falls by half a decibel for some 10 ms.
    """
    table = _noise_spectrum()
    at = torch.arange(first, first + count)
    return table[(at if period is None else at % period) % len(table)]


def calm_noise(length: int, iterations: int = 30) -> Tensor:
    """White noise of unit power [length] whose short-time spectra are as even as iterations can make them.

    In Gaussian noise some cells of a spectrum are all but missing and others stick out, at random; two draws differ as
    much from each other as from a wrong sound. Low-noise noise (Hartmann & Pumplin, JASA 1988) has an even envelope;
    here, spectra of three window lengths are made even in turn, by Griffin & Lim's projections. Ours.
    """
    noise = torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    for i in range(iterations):
        n_fft = (512, 1024, 2048)[i % 3]
        bins = spectrum(noise, n_fft, n_fft // 4)
        noise = inverse_spectrum(bins / bins.abs().clamp(min=1e-9), n_fft, n_fft // 4)
        noise = noise / noise.square().mean().sqrt()
    return noise[0]


@lru_cache(maxsize=1)
def _noise_spectrum() -> Tensor:
    """The noise of every clip, as complex [frames, bands]; it repeats after 8.2 s."""
    with torch.inference_mode(False), torch.no_grad():  # training may use what generating has cached
        return spectrum(calm_noise(1 << 17)[None], SHORT, SHORT // 4)[0]


START = torch.rand(OSCILLATORS, generator=torch.Generator().manual_seed(1)) * 2 * math.pi
"""Phases in which the oscillators start; were they equal, their peaks would add up."""

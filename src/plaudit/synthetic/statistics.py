"""The synthetic world's stand-in for MERT: fixed statistics of spectrum, tuning, rhythm and level.

All of it is ours. Each function maps a batch of clips to [B, k] whatever their length. Which values are good is for a
reward to learn.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.encoders.spectrum import (
    checked,
    log_bands,
    low_quantile,
    mel_filters,
    onset_strength,
    power,
    semitone_filters,
)
from plaudit.storage import SHIPPED_WEIGHTS, load_module

TUNING_WINDOW, TUNING_HOP = 8192, 2048
TUNING_REGISTERS = (110.0, 220.0, 440.0, 880.0, 1760.0)
TUNING_HISTOGRAM_BINS = 10
PEAK_FRACTIONS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
LEVEL_POINTS = (0.0, 0.02, 0.05, 0.1, 0.25, 0.75, 0.9, 1.0)
GAPS = (1.0, 2.0, 3.0)
EDGE = 0.05
TIMING_TEMPI = tuple(60.0 * 2 ** (i / 48) for i in range(77))
"""Candidate tempi in beats per minute, 60 to 180 in steps of 1.5 %."""
TIMING_PULSES = (1.0, 2.0, 3.0, 4.0, 8.0)
WIDTHS = 20
FRAMES_AT_ONCE = 4096
"""Frames of onsets that are correlated with all tempi at once, to bound the memory for long pieces."""


def amplitude(wave: Tensor) -> Tensor:
    """Distribution of samples below the peak, and how many stay constant near it (clipping): [B, T] -> [B, 12]."""
    loud = wave.abs()
    peak = loud.amax(1, keepdim=True) + 1e-5
    rms = wave.square().mean(1).sqrt() + 1e-5
    fractions = [(loud > edge * peak).count_nonzero(1) / wave.shape[1] for edge in PEAK_FRACTIONS]
    still = (wave[:, 1:] - wave[:, :-1]).abs() < 2e-3 * peak
    pairs = wave.shape[1] - 1
    flat = [((still & (loud[:, 1:] > e * peak)).count_nonzero(1) / pairs + 1e-4).log10() for e in (0.3, 0.7)]
    crest = (peak[:, 0] / rms).log10()
    kurtosis = (wave.square().square().mean(1) / rms.pow(4) + 1e-3).log10()
    return torch.stack([*fractions, *flat, crest, kurtosis], 1)


def level_features(wave: Tensor, rate: int) -> Tensor:
    """Quantiles of short-time loudness around its median, and its sudden falls and gaps: [B, T] -> [B, 14].

    The first and last EDGE seconds, where a clip may be faded and padded, are left out.
    """
    hop, edge = rate // 100, round(EDGE * rate)
    wave = wave[:, edge : wave.shape[1] - edge]
    decades = F.avg_pool1d(wave.square().unsqueeze(1), hop, hop).squeeze(1).clamp(min=1e-9).log10()  # [B, N]
    median = decades.median(1, keepdim=True).values
    spread = torch.quantile(decades, torch.tensor(LEVEL_POINTS, device=wave.device), dim=1).T - median
    gaps = [((decades < median - depth).float().mean(1) + 1e-3).log10() for depth in GAPS]
    step = decades[:, 1:] - decades[:, :-1]
    falls = [((step < -drop).float().mean(1) + 1e-3).log10() for drop in (1.5, 3.0)]
    return torch.cat([spread, torch.stack([*gaps, *falls, (step > 3.0).float().mean(1)], 1)], 1)


def tuning_features(wave: Tensor, rate: int) -> Tensor:
    """Deviation of spectral peaks from equal temperament at A = 440 Hz, per register: [B, T] -> [B, 4 * 14].

    Per register of one octave, over all frames: a histogram of the deviation in 10 bins of 10 cents, and the mean of
    cos and of sin(2 pi deviation / semitone) with their length and that of the second harmonic. A peak is a local
    maximum; a parabola through three log magnitudes gives its frequency to about a cent.
    """
    bin_hz = rate / TUNING_WINDOW
    highest = round(TUNING_REGISTERS[-1] / bin_hz) + 2
    log = power(wave, TUNING_WINDOW, TUNING_HOP, highest).clamp(min=1e-12).log() / 2  # [B, F, N]
    left, centre, right = log[:, :-2], log[:, 1:-1], log[:, 2:]
    audible = centre > log.amax((1, 2), keepdim=True) - math.log(300.0)
    peak = (centre > left) & (centre >= right) & audible
    shift = (0.5 * (left - right) / (left - 2 * centre + right).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    number = torch.arange(1, highest - 1, device=wave.device).view(1, -1, 1)
    semitones = 12 * torch.log2((number + shift) * bin_hz / 440)
    deviation = semitones - semitones.round()  # [B, F, N], in semitones
    weight = (centre / 2).exp() * peak  # square root of the magnitude
    angle = 2 * math.pi * deviation
    waves = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], 1) * weight.unsqueeze(1)
    bins = ((deviation + 0.5) * TUNING_HISTOGRAM_BINS).long().clamp(0, TUNING_HISTOGRAM_BINS - 1)
    out = []
    for low, high in pairwise(TUNING_REGISTERS):
        rows = slice(round(low / bin_hz) - 1, round(high / bin_hz) - 1)
        w = weight[:, rows].flatten(1)
        total = w.sum(1, keepdim=True) + 1e-3
        histogram = torch.zeros(len(wave), TUNING_HISTOGRAM_BINS, device=wave.device)
        cos, sin, cos2, sin2 = (waves[:, :, rows].sum((2, 3)) / total).unbind(1)
        out += [
            histogram.scatter_add(1, bins[:, rows].flatten(1), w) / total,
            torch.stack([cos, sin, _length(cos, sin), _length(cos2, sin2)], 1),
        ]
    return torch.cat(out, 1)


def timing_features(onsets: Tensor, rate: float) -> Tensor:
    """How tight the timing is, from onset strength [B, 4, N] at `rate` frames per second: -> [B, 160].

    Per band the autocorrelation at short lags, which loose timing widens; correlation of the lowest band with each of
    the others; for every band and their sum, the strength of the pulse at PULSES per beat, at the tempo that explains
    the sum best and at any tempo; the autocorrelation at beats of the best tempo; how sparse the onsets are.
    """
    frames = onsets.shape[-1]
    smooth = onsets - onsets.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(smooth, 2 * frames)
    correlation = torch.fft.irfft(spectrum.abs().square(), 2 * frames)[..., :frames]
    overlap = (frames - torch.arange(frames, device=onsets.device)) / frames
    correlation = correlation / (correlation[..., :1] + 1e-6) / overlap.clamp(min=0.25)
    cross = torch.fft.irfft(spectrum[:, :1] * spectrum[:, 1:].conj(), 2 * frames)  # lowest band with the others
    energy = smooth[:, :1].square().sum(-1, True) * smooth[:, 1:].square().sum(-1, True)
    cross = cross / (energy.clamp(min=1e-20).sqrt() + 1e-6)  # a root of zero has no gradient
    near = torch.cat([cross[..., -12:], cross[..., :13]], -1)  # lags -12..12
    together = torch.stack([near[..., 11:14].mean(-1), near.amax(-1), near[..., 6:19].mean(-1)], -1)

    tempi = torch.tensor(TIMING_TEMPI, device=onsets.device)
    frequency = tempi[:, None] / 60 * torch.tensor(TIMING_PULSES, device=onsets.device) / rate  # cycles per frame
    both = torch.cat([onsets, onsets.sum(1, keepdim=True)], 1)
    mean = both.mean(-1, keepdim=True)
    swing = torch.zeros(*both.shape[:2], 2, len(TIMING_TEMPI), len(TIMING_PULSES), device=onsets.device)
    for first, some in zip(range(0, frames, FRAMES_AT_ONCE), (both - mean).split(FRAMES_AT_ONCE, -1), strict=True):
        at = torch.arange(first, first + some.shape[-1], device=onsets.device)
        angle = 2 * math.pi * at * frequency.unsqueeze(-1)  # [tempi, pulses, N]
        phases = torch.cat([angle.cos(), angle.sin()]).flatten(0, 1).T  # [N, 2 * tempi * pulses]
        swing = swing + (some @ phases).unflatten(-1, (2, len(TIMING_TEMPI), len(TIMING_PULSES)))
    strength = _length(swing[:, :, 0], swing[:, :, 1]) / (both.sum(-1) + 1e-3)[..., None, None]  # [B, 5, tempi, pulses]
    best = strength[:, -1].sum(-1).argmax(1)  # [B]
    rows = torch.arange(len(onsets), device=onsets.device)
    at_best = strength[rows, :, best]  # [B, 5, pulses]
    lags = (60 * rate / tempi[best])[:, None] * torch.tensor((0.5, 1.0, 2.0, 4.0), device=onsets.device)
    lag = lags.round().long().clamp(max=frames - 1)
    beats = correlation.gather(-1, lag[:, None].expand(-1, onsets.shape[1], -1))
    strongest = strength.amax(2)  # [B, 5, pulses]
    sparsity = (both.square().mean(-1) / (mean[..., 0].square() + 1e-6) + 1e-3).log10()
    short = correlation[..., 1 : WIDTHS + 1]
    return torch.cat([x.flatten(1) for x in (short, together, at_best, beats, strongest, sparsity)], 1)


def flatness(spectrum: Tensor, groups: int = 4) -> Tensor:
    """Geometric over arithmetic mean of power in `groups` frequency ranges, as log10: [B, F, N] -> [B, 2 * groups].

    The mean over time and the 10 % point: hiss is most audible where the music is quiet.
    """
    ranges = (spectrum[:, 1:] + 1e-12).unflatten(1, (groups, -1))
    values = ranges.log10().mean(2) - ranges.mean(2).log10()  # [B, groups, N]
    return torch.cat([values.mean(-1), low_quantile(values, 0.1)], 1)


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square() + 1e-12).sqrt()


STATISTICS_RATE = 16000
BANDS = 64
WINDOW, STATISTICS_HOP = 1024, 256
ONSET_WINDOW, ONSET_HOP, ONSET_BANDS, STATISTICS_ONSET_GROUPS = 512, 128, 40, 4
STATISTICS_PITCH_WINDOW, STATISTICS_PITCH_HOP, STATISTICS_PITCH_BANDS = 4096, 2048, 60


class StatisticsEmbedder(nn.Module):
    """A plaudit.types.AudioEmbedder: timbre, level, tuning, timing and harmony as one standardized vector (ours).

    `mean` and `std` come from 2,000 training clips (tools.synthetic.statistics); values are clipped to 6 standard
    deviations, so that one odd clip cannot dominate. The vector does not depend
    on gain. Gradients flow through everything but counts, quantiles and the choice of peaks and tempo.
    """

    name = "statistics"
    sample_rate = STATISTICS_RATE
    sample_bytes = 128
    mel: Tensor
    fine: Tensor
    pitch: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_filters(STATISTICS_RATE, WINDOW, BANDS), persistent=False)
        self.register_buffer("fine", mel_filters(STATISTICS_RATE, ONSET_WINDOW, ONSET_BANDS), persistent=False)
        self.register_buffer(
            "pitch",
            semitone_filters(STATISTICS_RATE, STATISTICS_PITCH_WINDOW, bands=STATISTICS_PITCH_BANDS),
            persistent=False,
        )
        with torch.no_grad():
            self.dim = self.statistics(torch.zeros(1, STATISTICS_RATE)).shape[1]
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("std", torch.ones(self.dim))

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 16 kHz, at least one second -> [B, dim], each about zero mean and unit variance."""
        raw = self.statistics(checked(wave, STATISTICS_RATE))
        return ((raw - self.mean) / self.std).clamp(-6, 6)

    def statistics(self, wave: Tensor) -> Tensor:
        """The same before standardization: [B, T] -> [B, dim]."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        spectrum = power(wave, WINDOW, STATISTICS_HOP)
        mel = log_bands(spectrum, self.mel)  # [B, 64, N]
        floor, flat = low_quantile(mel, 0.05).unflatten(1, (16, -1)).mean(2), flatness(spectrum)
        del spectrum  # of a long piece it is large
        fine = log_bands(power(wave, ONSET_WINDOW, ONSET_HOP), self.fine, floor=1e-6)
        onsets = onset_strength(fine, STATISTICS_ONSET_GROUPS)
        chroma = (
            log_bands(power(wave, STATISTICS_PITCH_WINDOW, STATISTICS_PITCH_HOP), self.pitch)
            .mean(-1)
            .unflatten(1, (5, 12))
            .mean(1)
        )
        return torch.cat(
            [
                mel.mean(-1),
                mel.std(-1),
                floor,
                flat,
                amplitude(wave),
                level_features(wave, STATISTICS_RATE),
                tuning_features(wave, STATISTICS_RATE),
                timing_features(onsets, STATISTICS_RATE / ONSET_HOP),
                chroma - chroma.mean(1, keepdim=True),
            ],
            1,
        )


def load_statistics(folder: Path = SHIPPED_WEIGHTS / "statistics") -> StatisticsEmbedder:
    """The embedder with its shipped standardization."""
    embedder = StatisticsEmbedder()
    load_module(folder, embedder)
    return embedder.eval()

"""The synthetic world's stand-in for MERT: fixed statistics of spectrum, tuning, rhythm and level.

All of it is ours. Each function maps a batch of clips to [B, k] whatever their length. Which values are good is for a
reward to learn.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.devices import reduced_precision
from plaudit.encoders.spectrum import (
    LogBands,
    checked,
    low_quantile,
    mel_filters,
    onset_strength,
    power,
    power_blocks,
    semitone_filters,
)
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_module

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
    counted, limit = loud.detach(), peak.detach()
    above = torch.empty_like(counted)  # 1.0 where it is: sums of floats are faster than counts of booleans
    fractions = [torch.gt(counted, edge * limit, out=above).mean(1) for edge in PEAK_FRACTIONS]
    step = (wave.detach()[:, 1:] - wave.detach()[:, :-1]).abs_()
    still = torch.lt(step, 2e-3 * limit, out=torch.empty_like(step))
    later, above = counted[:, 1:], above[:, 1:]
    flat = [((still * torch.gt(later, e * limit, out=above)).mean(1) + 1e-4).log10() for e in (0.3, 0.7)]
    crest = (peak[:, 0] / rms).log10()
    kurtosis = (wave.square().square().mean(1) / rms.pow(4) + 1e-3).log10()
    return torch.stack([*fractions, *flat, crest, kurtosis], 1)


def level_features(wave: Tensor, rate: int) -> Tensor:
    """Quantiles of short-time loudness around its median, and its sudden falls and gaps: [B, T] -> [B, 14].

    The first and last EDGE seconds, where a clip may be faded and padded, are left out.
    """
    hop, edge = rate // 100, round(EDGE * rate)
    wave = wave[:, edge : wave.shape[1] - edge]
    whole = wave[:, : wave.shape[1] // hop * hop].unflatten(1, (-1, hop))
    decades = whole.square().mean(2).clamp(min=1e-9).log10()  # [B, N]
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
    edges = [round(hertz / bin_hz) for hertz in TUNING_REGISTERS]
    spectra = power(wave, TUNING_WINDOW, TUNING_HOP, edges[-1] + 2).clamp(min=1e-12)  # [B, N, F]
    quietest = spectra.amax((1, 2), keepdim=True) / 300.0**2
    left, centre, right = (spectra[..., edges[0] + shift : edges[-1] + shift] for shift in (-1, 0, 1))
    peaks = (centre > left) & (centre >= right) & (centre > quietest)
    clip, frame, bin = peaks.nonzero(as_tuple=True)  # a peak in some ten bins: what follows is of peaks alone
    bin = bin + edges[0]
    left, centre, right = (spectra[clip, frame, bin + shift].log() / 2 for shift in (-1, 0, 1))
    shift = (0.5 * (left - right) / (left - 2 * centre + right).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    semitones = 12 * torch.log2((bin + shift) * bin_hz / 440)
    deviation = semitones - semitones.round()
    weight = (centre / 2).exp()  # square root of the magnitude
    registers = len(edges) - 1
    group = clip * registers + torch.bucketize(bin, torch.tensor(edges[1:-1], device=wave.device), right=True)

    def total(values: Tensor, groups: Tensor, count: int) -> Tensor:
        sums = torch.zeros(len(wave) * registers * count, device=wave.device)
        return sums.index_add(0, groups, values).view(len(wave), registers, count)

    share = total(weight, group, 1) + 1e-3
    tenth = ((deviation + 0.5) * TUNING_HISTOGRAM_BINS).long().clamp(0, TUNING_HISTOGRAM_BINS - 1)
    histogram = total(weight, group * TUNING_HISTOGRAM_BINS + tenth, TUNING_HISTOGRAM_BINS) / share
    angle = 2 * math.pi * deviation
    cos, sin, cos2, sin2 = (
        total(weight * turned, group, 1) / share
        for turned in (angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin())
    )
    return torch.cat([histogram, cos, sin, _length(cos, sin), _length(cos2, sin2)], 2).flatten(1)


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
    phases, turns = _pulse_phases(rate, onsets.device)
    both = torch.cat([onsets, onsets.sum(1, keepdim=True)], 1)
    mean = both.mean(-1, keepdim=True)
    shape = (2, len(TIMING_TEMPI), len(TIMING_PULSES))
    swing = torch.zeros(*both.shape[:2], *shape, device=onsets.device)
    for number, some in enumerate((both - mean).split(FRAMES_AT_ONCE, -1)):
        cos, sin = (some @ phases[: some.shape[-1]]).unflatten(-1, shape).unbind(2)
        (turn_cos, turn_sin) = _rotation(number * turns, onsets.device)
        swing = swing + torch.stack([cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin], 2)
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


@lru_cache(maxsize=2)
def _pulse_phases(rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """For every tempo and pulse, at `rate` frames per second: cos and sin of the phase at each of FRAMES_AT_ONCE frames
    [N, 2 * tempi * pulses], and the turns that so many frames make [tempi, pulses], in float64."""
    with torch.inference_mode(False):  # training may use what evaluation has cached
        beats = torch.tensor(TIMING_TEMPI, dtype=torch.float64)[:, None] / 60
        frequency = beats * torch.tensor(TIMING_PULSES, dtype=torch.float64) / rate  # cycles per frame
        angle = 2 * math.pi * torch.arange(FRAMES_AT_ONCE)[:, None] * frequency.flatten()
        return torch.cat([angle.cos(), angle.sin()], 1).float().to(device), FRAMES_AT_ONCE * frequency


def _rotation(turns: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    angle = 2 * math.pi * turns.frac()
    return angle.cos().float().to(device), angle.sin().float().to(device)


def flatness(spectra: Tensor, groups: int = 4) -> Tensor:
    """Geometric over arithmetic mean of power in `groups` frequency ranges, as log10: [B, N, F] -> [B, N, groups]."""
    ranges = (1e6 * spectra[..., 1:] + 1e-6).unflatten(-1, (groups, -1))
    mean = ranges.mean(-1)
    for _ in range(2):  # logarithms of products of four, which stay in the range of float32
        first, second = ranges.chunk(2, -1)
        ranges = first * second
    return ranges.log10().mean(-1) / 4 - mean.log10()


def _spread(values: Tensor) -> Tensor:
    """The standard deviation over N of values [..., N]; torch.std takes ten times as long."""
    squares = (values - values.mean(-1, keepdim=True)).square()
    return (squares.sum(-1) / (values.shape[-1] - 1)).sqrt()


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
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogBands(mel_filters(STATISTICS_RATE, WINDOW, BANDS))
        self.fine = LogBands(mel_filters(STATISTICS_RATE, ONSET_WINDOW, ONSET_BANDS), floor=1e-6)
        self.pitch = LogBands(semitone_filters(STATISTICS_RATE, STATISTICS_PITCH_WINDOW, bands=STATISTICS_PITCH_BANDS))
        with torch.no_grad():
            self.dim = self.statistics(torch.zeros(1, STATISTICS_RATE)).shape[1]
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("std", torch.ones(self.dim))

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 16 kHz, at least one second -> [B, dim], each about zero mean and unit variance."""
        with reduced_precision(wave.device, enabled=False):
            raw = self.statistics(checked(wave, STATISTICS_RATE))
        return ((raw - self.mean) / self.std).clamp(-6, 6)

    def statistics(self, wave: Tensor) -> Tensor:
        """The same before standardization: [B, T] -> [B, dim]."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        bands, ranges = [], []
        for spectra in power_blocks(wave, WINDOW, STATISTICS_HOP):
            bands.append(self.mel(spectra))
            ranges.append(flatness(spectra))
        mel, flat = (torch.cat(blocks, 1).transpose(1, 2).contiguous() for blocks in (bands, ranges))  # [B, ..., N]
        floor = low_quantile(mel, 0.05).unflatten(1, (16, -1)).mean(2)
        onsets = onset_strength(self.fine.of_wave(wave, ONSET_WINDOW, ONSET_HOP), STATISTICS_ONSET_GROUPS)
        pitch = self.pitch.of_wave(wave, STATISTICS_PITCH_WINDOW, STATISTICS_PITCH_HOP)
        chroma = pitch.mean(-1).unflatten(1, (5, 12)).mean(1)
        return torch.cat(
            [
                mel.mean(-1),
                _spread(mel),
                floor,
                flat.mean(-1),
                low_quantile(flat, 0.1),  # hiss is most audible where the music is quiet
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

"""The synthetic reward's encoders in their plainest form, which stay as they are: the reference of benchmarks.scoring.

Every spectrum is transformed whole, every band is a product with all bins, and every feature follows its definition.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.encoders.spectrum import low_quantile, mel_filters, onset_strength, semitone_filters
from plaudit.reward.features import RewardFeatures
from plaudit.reward.tunejury import TuneJury
from plaudit.synthetic import clap, statistics
from plaudit.synthetic.clap import SpectralViews, SyntheticCLAP, Views
from plaudit.synthetic.statistics import StatisticsEmbedder

RATE = 16000


def plain_reward(reward: TuneJury) -> TuneJury:
    """The shipped reward with the weights of `reward` and plain encoders, of which it gives the same scores."""
    encoder, embedder = SyntheticCLAP(**reward.features.clap.config), PlainStatistics()  # type: ignore[attr-defined]
    encoder.listening = PlainViews()
    encoder.load_state_dict(reward.features.clap.state_dict())  # type: ignore[attr-defined]
    embedder.load_state_dict(reward.features.audio_encoder.state_dict())  # type: ignore[attr-defined]
    features = RewardFeatures(encoder.eval().requires_grad_(False), embedder.eval(), reward.features.blocks)
    return TuneJury(reward.head, features)


def power(wave: Tensor, window: int, hop: int, bins: int | None = None) -> Tensor:
    """Power spectrogram of wave [B, T]: [B, bins, T // hop]."""
    hann = torch.hann_window(window, device=wave.device)
    padded = F.pad(wave, (window // 2, window // 2), mode="reflect")
    end = (wave.shape[1] // hop - 1) * hop + window
    frames = torch.stft(padded[:, :end], window, hop, window=hann / hann.sum(), center=False, return_complex=True)[
        :, :bins
    ]
    return frames.real.square() + frames.imag.square()


def log_bands(spectrum: Tensor, filters: Tensor, floor: float = 1e-8) -> Tensor:
    """log10 of the energy in each band: [B, F, N] and [bands, F] -> [B, bands, N]; silence is log10(floor)."""
    return (filters @ spectrum).clamp(min=floor).log10()


def amplitude(wave: Tensor) -> Tensor:
    """Distribution of samples below the peak, and how many stay constant near it (clipping): [B, T] -> [B, 12]."""
    loud = wave.abs()
    peak = loud.amax(1, keepdim=True) + 1e-5
    rms = wave.square().mean(1).sqrt() + 1e-5
    fractions = [(loud > edge * peak).count_nonzero(1) / wave.shape[1] for edge in statistics.PEAK_FRACTIONS]
    still = (wave[:, 1:] - wave[:, :-1]).abs() < 2e-3 * peak
    pairs = wave.shape[1] - 1
    flat = [((still & (loud[:, 1:] > e * peak)).count_nonzero(1) / pairs + 1e-4).log10() for e in (0.3, 0.7)]
    crest = (peak[:, 0] / rms).log10()
    kurtosis = (wave.square().square().mean(1) / rms.pow(4) + 1e-3).log10()
    return torch.stack([*fractions, *flat, crest, kurtosis], 1)


def level_features(wave: Tensor, rate: int) -> Tensor:
    """Quantiles of short-time loudness around its median, and its sudden falls and gaps: [B, T] -> [B, 14].

    The first and last statistics.EDGE seconds, where a clip may be faded and padded, are left out.
    """
    hop, edge = rate // 100, round(statistics.EDGE * rate)
    wave = wave[:, edge : wave.shape[1] - edge]
    decades = F.avg_pool1d(wave.square().unsqueeze(1), hop, hop).squeeze(1).clamp(min=1e-9).log10()  # [B, N]
    median = decades.median(1, keepdim=True).values
    spread = torch.quantile(decades, torch.tensor(statistics.LEVEL_POINTS, device=wave.device), dim=1).T - median
    gaps = [((decades < median - depth).float().mean(1) + 1e-3).log10() for depth in statistics.GAPS]
    step = decades[:, 1:] - decades[:, :-1]
    falls = [((step < -drop).float().mean(1) + 1e-3).log10() for drop in (1.5, 3.0)]
    return torch.cat([spread, torch.stack([*gaps, *falls, (step > 3.0).float().mean(1)], 1)], 1)


def tuning_features(wave: Tensor, rate: int) -> Tensor:
    """Deviation of spectral peaks from equal temperament at A = 440 Hz, per register: [B, T] -> [B, 4 * 14].

    Per register of one octave, over all frames: a histogram of the deviation in 10 bins of 10 cents, and the mean of
    cos and of sin(2 pi deviation / semitone) with their length and that of the second harmonic. A peak is a local
    maximum; a parabola through three log magnitudes gives its frequency to about a cent.
    """
    bin_hz = rate / statistics.TUNING_WINDOW
    highest = round(statistics.TUNING_REGISTERS[-1] / bin_hz) + 2
    log = power(wave, statistics.TUNING_WINDOW, statistics.TUNING_HOP, highest).clamp(min=1e-12).log() / 2  # [B, F, N]
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
    bins = ((deviation + 0.5) * statistics.TUNING_HISTOGRAM_BINS).long().clamp(0, statistics.TUNING_HISTOGRAM_BINS - 1)
    out = []
    for low, high in pairwise(statistics.TUNING_REGISTERS):
        rows = slice(round(low / bin_hz) - 1, round(high / bin_hz) - 1)
        w = weight[:, rows].flatten(1)
        total = w.sum(1, keepdim=True) + 1e-3
        histogram = torch.zeros(len(wave), statistics.TUNING_HISTOGRAM_BINS, device=wave.device)
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

    tempi = torch.tensor(statistics.TIMING_TEMPI, device=onsets.device)
    frequency = (
        tempi[:, None] / 60 * torch.tensor(statistics.TIMING_PULSES, device=onsets.device) / rate
    )  # cycles per frame
    both = torch.cat([onsets, onsets.sum(1, keepdim=True)], 1)
    mean = both.mean(-1, keepdim=True)
    angle = 2 * math.pi * torch.arange(frames, device=onsets.device) * frequency.unsqueeze(-1)  # [tempi, pulses, N]
    phases = torch.cat([angle.cos(), angle.sin()]).flatten(0, 1).T  # [N, 2 * tempi * pulses]
    swing = ((both - mean) @ phases).unflatten(-1, (2, len(statistics.TIMING_TEMPI), len(statistics.TIMING_PULSES)))
    strength = _length(swing[:, :, 0], swing[:, :, 1]) / (both.sum(-1) + 1e-3)[..., None, None]  # [B, 5, tempi, pulses]
    best = strength[:, -1].sum(-1).argmax(1)  # [B]
    rows = torch.arange(len(onsets), device=onsets.device)
    at_best = strength[rows, :, best]  # [B, 5, pulses]
    lags = (60 * rate / tempi[best])[:, None] * torch.tensor((0.5, 1.0, 2.0, 4.0), device=onsets.device)
    lag = lags.round().long().clamp(max=frames - 1)
    beats = correlation.gather(-1, lag[:, None].expand(-1, onsets.shape[1], -1))
    strongest = strength.amax(2)  # [B, 5, pulses]
    sparsity = (both.square().mean(-1) / (mean[..., 0].square() + 1e-6) + 1e-3).log10()
    short = correlation[..., 1 : statistics.WIDTHS + 1]
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


def bands(wave: Tensor, window: int, hop: int, filters: Tensor, floor: float = 1e-8) -> Tensor:
    """log10 of the energy of wave [B, T] in each band: [B, bands, T // hop]."""
    return log_bands(power(wave, window, hop), filters, floor)


class PlainViews(SpectralViews):
    """The audio tower's input from whole spectra."""

    def forward(self, wave: Tensor) -> Views:
        """wave [B, T] at 16 kHz -> Views."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        mel = bands(wave, clap.MEL_WINDOW, clap.MEL_HOP, self.filters("mel"))
        pitch = bands(wave, clap.PITCH_WINDOW, clap.PITCH_HOP, self.filters("pitch"))
        return Views(mel / 4 + 1, pitch / 4 + 1)

    @staticmethod
    @lru_cache
    def filters(name: str) -> Tensor:
        """The filters of mel bands or of semitones: [bands, bins]."""
        if name == "mel":
            return mel_filters(RATE, clap.MEL_WINDOW, clap.MEL_BANDS)
        return semitone_filters(RATE, clap.PITCH_WINDOW, bands=clap.PITCH_BANDS)


class PlainStatistics(StatisticsEmbedder):
    """The statistics from whole spectra."""

    def statistics(self, wave: Tensor) -> Tensor:
        """[B, T] -> [B, dim]."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        spectrum = power(wave, statistics.WINDOW, statistics.STATISTICS_HOP)
        mel = log_bands(spectrum, self.filters("mel"))
        fine = bands(wave, statistics.ONSET_WINDOW, statistics.ONSET_HOP, self.filters("fine"), 1e-6)
        onsets = onset_strength(fine, statistics.STATISTICS_ONSET_GROUPS)
        window, hop = statistics.STATISTICS_PITCH_WINDOW, statistics.STATISTICS_PITCH_HOP
        pitch = bands(wave, window, hop, self.filters("pitch"))
        chroma = pitch.mean(-1).unflatten(1, (5, 12)).mean(1)
        parts = [
            mel.mean(-1),
            mel.std(-1),
            low_quantile(mel, 0.05).unflatten(1, (16, -1)).mean(2),
            flatness(spectrum),
            amplitude(wave),
            level_features(wave, RATE),
            tuning_features(wave, RATE),
            timing_features(onsets, RATE / statistics.ONSET_HOP),
            chroma - chroma.mean(1, keepdim=True),
        ]
        return torch.cat(parts, 1)

    @staticmethod
    @lru_cache
    def filters(name: str) -> Tensor:
        """The filters of mel bands, of onset bands or of semitones: [bands, bins]."""
        if name == "mel":
            return mel_filters(RATE, statistics.WINDOW, statistics.BANDS)
        if name == "fine":
            return mel_filters(RATE, statistics.ONSET_WINDOW, statistics.ONSET_BANDS)
        return semitone_filters(RATE, statistics.STATISTICS_PITCH_WINDOW, bands=statistics.STATISTICS_PITCH_BANDS)

"""Probes: small networks that predict a clip's attributes (genre, mood, ..., key) and flaws.

They are the perception of the simulated listeners, and no reward has access to them. Features do not depend on gain,
and mean the same for every length from SHORTEST_PROBE_SECONDS up. Ours throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from plaudit.encoders.spectrum import mel_edges, mel_filters
from plaudit.errors import AudioError
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_module
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, MODES, MOODS
from plaudit.types import Codec

RATE = 16000
PROBE_MEL_BANDS = 80
PROBE_MEL_HOP = 256
TONAL_SIZE, TONAL_HOP = 8192, 2048
TONAL_BINS = 1200  # of the STFT, up to 2344 Hz
OCTAVES = 5
LOWEST_C = 65.406  # Hz, C2
BINS_PER_OCTAVE = 36
REGISTERS = (90.0, 250.0, 500.0, 1000.0, 2200.0)
TUNING_BINS = 20  # of 5 cents: -50 .. +50 around the nearest tempered pitch
TEMPI = tuple(60.0 * 2 ** (k / 36) for k in range(58))
"""Tempo candidates in beats per minute, 60 to 180 in steps of 1.9 %: finer than any listener's tolerance."""
LAG_BEATS = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PULSES = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0)
RHYTHM_BANDS = (0.0, 150.0, 500.0, 2000.0, 8000.0)
RHYTHM_HOP = 128
RHYTHM_DIM = (len(RHYTHM_BANDS) - 1) * (len(LAG_BEATS) + len(PULSES))
LEVEL_DIM = 18
SHORTEST_PROBE_SECONDS = 2.5


@dataclass(frozen=True)
class ProbeFeatures:
    """The probes' input for a batch of clips.

    mel: log-mel spectrogram [B, PROBE_MEL_BANDS, T / PROBE_MEL_HOP].
    tonal: log-frequency spectrogram [B, OCTAVES, BINS_PER_OCTAVE, T / TONAL_HOP]; bin 0 of an octave is C.
    tuning: histogram per register of how far spectral peaks are from tempered pitches [B, registers, TUNING_BINS].
    rhythm: for every tempo candidate, how well it explains the onsets [B, len(TEMPI), RHYTHM_DIM].
    level: amplitude and short-time loudness statistics [B, LEVEL_DIM].
    """

    mel: Tensor
    tonal: Tensor
    tuning: Tensor
    rhythm: Tensor
    level: Tensor


def probe_features(waves: Tensor) -> ProbeFeatures:
    """Features of `waves` [B, T] at RATE, T at least SHORTEST seconds. AudioError for anything else."""
    if waves.ndim != 2 or waves.shape[1] < SHORTEST_PROBE_SECONDS * RATE:
        raise AudioError(
            f"the probes need clips of at least {SHORTEST_PROBE_SECONDS:g} s at {RATE} Hz, "
            f"not shape {tuple(waves.shape)}; use longer clips"
        )
    if not torch.isfinite(waves).all():
        raise AudioError("the waveform has values that are not finite; decode or generate it again")
    waves = waves.float()
    # A floor far below any music keeps digital silence finite.
    waves = 0.1 * waves / (waves.square().mean(1, keepdim=True).sqrt() + 1e-5)
    spectrum = probe_magnitude(waves, TONAL_SIZE, TONAL_HOP)[:, :TONAL_BINS]
    envelopes = onset_envelopes(waves)
    return ProbeFeatures(
        mel=probe_log_mel(waves),
        tonal=log_frequency(spectrum),
        tuning=tuning_histogram(spectrum),
        rhythm=rhythm_features(envelopes),
        level=level_statistics(waves),
    )


def probe_magnitude(waves: Tensor, size: int, hop: int) -> Tensor:
    """Magnitudes of the centred STFT with a Hann window that sums to one: [B, T] -> [B, size / 2 + 1, T / hop + 1]."""
    window = torch.hann_window(size)
    spectrum = torch.stft(waves, size, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    return spectrum.abs() / window.sum()


def probe_log_mel(waves: Tensor) -> Tensor:
    """Natural-log mel spectrogram, roughly in -2 .. 2: [B, T] -> [B, MEL_BANDS, T / MEL_HOP]."""
    mel = torch.einsum("mf,bft->bmt", probe_mel_filters(1024), probe_magnitude(waves, 1024, PROBE_MEL_HOP)[..., :-1])
    return (mel.clamp_min(1e-6).log() + 9.0) / 3.0


def log_frequency(spectrum: Tensor) -> Tensor:
    """Log-compressed magnitudes on a log-frequency axis: [B, TONAL_BINS, N] -> [B, OCTAVES, BINS_PER_OCTAVE, N]."""
    bins = torch.einsum("qf,bft->bqt", log_frequency_filters(), spectrum)
    return torch.log1p(2000.0 * bins).unflatten(1, (OCTAVES, BINS_PER_OCTAVE))


def tuning_histogram(spectrum: Tensor) -> Tensor:
    """Where peaks lie between tempered pitches: [B, TONAL_BINS, N] -> [B, registers, TUNING_BINS], rows sum to 1.

    A peak is a local maximum over frequency; its frequency comes from a parabola through the log magnitudes of three
    bins, which is accurate to about a cent above 150 Hz; it counts by the square root of its magnitude.
    """
    log = spectrum.clamp_min(1e-7).log()
    left, centre, right = log[:, :-2], log[:, 1:-1], log[:, 2:]
    loud = centre > log.amax((1, 2), keepdim=True) - math.log(300.0)
    peak = (centre > left) & (centre >= right) & loud
    shift = 0.5 * (left - right) / (left - 2 * centre + right).clamp_max(-1e-6)
    number = torch.arange(1, spectrum.shape[1] - 1).view(1, -1, 1)
    frequency = (number + shift.clamp(-0.5, 0.5)) * (RATE / TONAL_SIZE)
    pitch = 12 * torch.log2(frequency / 440.0)
    position = (pitch - pitch.round() + 0.5) * TUNING_BINS
    weight = spectrum[:, 1:-1].sqrt() * peak
    histograms = []
    for low, high in pairwise(REGISTERS):
        first, last = int(low * TONAL_SIZE / RATE), int(high * TONAL_SIZE / RATE)
        index = position[:, first:last].long().clamp(0, TUNING_BINS - 1).flatten(1)
        histogram = torch.zeros(len(spectrum), TUNING_BINS).scatter_add_(1, index, weight[:, first:last].flatten(1))
        histograms.append(histogram / (histogram.sum(1, keepdim=True) + 1e-4))
    return torch.stack(histograms, 1)


def onset_envelopes(waves: Tensor) -> Tensor:
    """The rise of loudness in each frequency band: [B, T] -> [B, bands, T / RHYTHM_HOP]."""
    spectrum = probe_magnitude(waves, 512, RHYTHM_HOP)
    power = torch.log1p(1000.0 * torch.einsum("mf,bft->bmt", probe_mel_filters(512, 40), spectrum))
    # Two frames back: a window spans four hops, so a rise is spread over neighbouring frames.
    rise = (power[:, :, 2:] - power[:, :, :-2]).clamp_min(0)
    centres = mel_edges(0.0, RATE / 2, 40, torch.float32)[1:-1]
    edges = list(pairwise(RHYTHM_BANDS))
    return torch.stack([rise[:, (centres >= low) & (centres < high)].mean(1) for low, high in edges], 1)


def rhythm_features(envelopes: Tensor) -> Tensor:
    """How each tempo candidate explains the onsets: [B, bands, N] -> [B, len(TEMPI), RHYTHM_DIM].

    For each band: autocorrelation of the onset envelope at LAG_BEATS of the candidate's beat, and the strength of
    its oscillation at PULSES per beat. So the same network can score every candidate.
    """
    frames = envelopes.shape[-1]
    rate = RATE / RHYTHM_HOP
    centred = envelopes - envelopes.mean(-1, keepdim=True)
    size = 2 ** math.ceil(math.log2(2 * frames))
    correlation = torch.fft.irfft(torch.fft.rfft(centred, size).abs().square(), size)[..., :frames]
    # Divided by the share of overlapping frames, so that long lags of short clips are not punished.
    overlap = (frames - torch.arange(frames)) / frames
    correlation = correlation / (correlation[..., :1] + 1e-6) / overlap.clamp_min(0.25)
    beat = torch.tensor([60 * rate / tempo for tempo in TEMPI])
    lag = beat[:, None] * torch.tensor(LAG_BEATS)
    below = lag.long().clamp_max(frames - 2)
    share = (lag - below).clamp(0, 1)
    sampled = correlation[..., below] * (1 - share) + correlation[..., below + 1] * share
    sampled = sampled * (lag < 0.8 * frames)  # [B, bands, tempi, lags]
    window = torch.hann_window(frames)
    frequency = torch.tensor(PULSES) / beat[:, None]
    angle = 2 * math.pi * torch.arange(frames)[:, None, None] * frequency
    windowed = centred * window
    real = torch.einsum("bkn,ntp->bktp", windowed, angle.cos())
    imaginary = torch.einsum("bkn,ntp->bktp", windowed, angle.sin())
    total = (envelopes * window).sum(-1)[..., None, None] + 1e-3
    strength = (real.square() + imaginary.square()).sqrt() / total
    return torch.cat([sampled, strength], -1).permute(0, 2, 1, 3).flatten(2)


def level_statistics(waves: Tensor) -> Tensor:
    """Amplitude distribution against the peak, and how short-time loudness is spread: [B, T] -> [B, LEVEL_DIM]."""
    absolute = waves.abs()
    peak = absolute.amax(1, keepdim=True) + 1e-5
    shares = [(absolute > edge * peak).float().mean(1) for edge in (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)]
    flat = (waves[:, 1:] - waves[:, :-1]).abs() < 1e-3 * peak
    held = (flat & (absolute[:, 1:] > 0.5 * peak)).float().mean(1)
    loudness = functional.avg_pool1d(waves.square()[:, None], 320, 160)[:, 0].clamp_min(1e-10).log10()
    median = loudness.median(1, keepdim=True).values
    points = torch.tensor([0.0, 0.02, 0.05, 0.1, 0.9, 1.0])
    spread = (torch.quantile(loudness, points, dim=1) - median[:, 0]).unbind(0)
    gaps = [(loudness < median - drop).float().mean(1) for drop in (2.0, 3.5)]
    return torch.stack([*shares, 20 * held, peak[:, 0].log(), *spread, *gaps], 1)


@cache
def probe_mel_filters(size: int, bands: int = PROBE_MEL_BANDS) -> Tensor:
    """mel_filters over the bins of an STFT of `size`, each summing to one: [bands, size / 2 + 1]."""
    filters = mel_filters(RATE, size, bands, low=0.0, dtype=torch.float32) + 1e-9
    return filters / filters.sum(1, keepdim=True)


@cache
def log_frequency_filters() -> Tensor:
    """Gaussians on a log-frequency axis from LOWEST_C, as narrow as the STFT allows: [OCTAVES * 36, TONAL_BINS]."""
    bins = torch.arange(TONAL_BINS) * (RATE / TONAL_SIZE)
    centre = LOWEST_C * 2 ** (torch.arange(OCTAVES * BINS_PER_OCTAVE) / BINS_PER_OCTAVE)
    width = (centre * (2 ** (1 / BINS_PER_OCTAVE) - 1) / 2).clamp_min(RATE / TONAL_SIZE / 2)
    weights = torch.exp(-0.5 * ((bins - centre[:, None]) / width[:, None]).square())
    return weights / weights.sum(1, keepdim=True)


TRUNK_WIDTH = 192
TUNING_DIM = (len(REGISTERS) - 1) * TUNING_BINS


@dataclass(frozen=True)
class Measurement:
    """The probes' predictions for B clips.

    genre [B, genres], mood [B, moods], tempo [B, len(TEMPI)] and key [B, 12, modes] are probabilities that sum to one
    per clip (key over both axes), instruments [B, instruments] are independent probabilities, flaws [B, len(FLAWS)]
    are severities 0..1.
    """

    genre: Tensor
    mood: Tensor
    instruments: Tensor
    tempo: Tensor
    key: Tensor
    flaws: Tensor

    def __len__(self) -> int:
        return len(self.genre)

    def rows(self, index: Tensor) -> Measurement:
        """The measurements of the clips at `index` [M], in that order."""
        return Measurement(*(getattr(self, field.name)[index] for field in fields(self)))


class MelTrunk(nn.Module):
    """Convolutions over a log-mel spectrogram, pooled over time: [B, MEL_BANDS, N] -> [B, 3 * TRUNK_WIDTH].

    Mean, standard deviation and maximum over time keep what is typical, how much it changes, and what is rare.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        first, second, third = channels
        self.planes = nn.Sequential(
            nn.Conv2d(1, first, (5, 5), stride=(2, 2), padding=2), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=(2, 2), padding=1), nn.BatchNorm2d(second), nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=(2, 1), padding=1), nn.BatchNorm2d(third), nn.ReLU(),
        )  # fmt: skip
        width = TRUNK_WIDTH
        self.lines = nn.Sequential(
            nn.Conv1d(third * PROBE_MEL_BANDS // 8, width, 1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, mel: Tensor) -> Tensor:
        lines = self.lines(self.planes(mel[:, None]).flatten(1, 2))  # [B, width, N / 4]
        return torch.cat([lines.mean(-1), lines.std(-1), lines.amax(-1)], 1)


class KeyProbe(nn.Module):
    """One network scores all twelve tonics, each shifted to C first: tonal -> logits [B, 12, modes].

    So it is equivariant to transposition by construction. Ours.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.frames = nn.Sequential(nn.Linear(OCTAVES * BINS_PER_OCTAVE, width), nn.ReLU())
        self.judge = nn.Sequential(
            nn.Linear(3 * width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, len(MODES))
        )

    def forward(self, tonal: Tensor) -> Tensor:
        # Per-clip standardization: what counts is which pitches stand out.
        tonal = (tonal - tonal.mean((1, 2, 3), keepdim=True)) / (tonal.std((1, 2, 3), keepdim=True) + 1e-3)
        step = BINS_PER_OCTAVE // 12
        views = torch.stack([tonal.roll(-step * tonic, 2) for tonic in range(12)], 1).flatten(2, 3)
        hidden = self.frames(views.transpose(2, 3))  # [B, 12, N, width]
        opening = hidden[:, :, : max(1, hidden.shape[2] // 5)]  # pieces tend to open on their tonic
        return self.judge(torch.cat([hidden.mean(2), hidden.amax(2), opening.mean(2)], -1))


class RhythmProbe(nn.Module):
    """One network scores every tempo candidate: [B, tempi, RHYTHM_DIM] -> logits [B, tempi], groove [B, width].

    `groove` is the hidden state averaged over the candidates by their probabilities.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(RHYTHM_DIM)
        self.hidden = nn.Sequential(nn.Linear(3 * RHYTHM_DIM, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.judge = nn.Linear(width, 1)
        self.usual = nn.Parameter(torch.zeros(len(TEMPI)))

    def forward(self, rhythm: Tensor) -> tuple[Tensor, Tensor]:
        rhythm = self.norm(rhythm.transpose(1, 2)).transpose(1, 2)
        # A candidate's input includes the clip's mean and maximum: a score is high only relative to others.
        context = [rhythm.mean(1, keepdim=True).expand_as(rhythm), rhythm.amax(1, keepdim=True).expand_as(rhythm)]
        hidden = self.hidden(torch.cat([rhythm, *context], -1))
        logits = self.judge(hidden)[..., 0] + self.usual
        return logits, torch.einsum("bk,bkw->bw", logits.softmax(-1), hidden)


class AttributeProbe(nn.Module):
    """Genre, mood, instruments, tempo and key of a clip, as logits by name. Trained on clean clips only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MelTrunk()
        self.rhythm = RhythmProbe()
        self.key = KeyProbe()
        joined = 3 * TRUNK_WIDTH + 64 + len(MODES)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(joined, 256), nn.ReLU(), nn.Dropout(0.3))
        self.genre = nn.Linear(256, len(GENRES))
        self.mood = nn.Linear(256, len(MOODS))
        self.instruments = nn.Linear(256, len(INSTRUMENTS))

    def forward(self, features: ProbeFeatures) -> dict[str, Tensor]:
        tempo, groove = self.rhythm(features.rhythm)
        key = self.key(features.tonal)
        # Major or minor is half of a mood, and the key probe detects it best; but mood must not train the key probe.
        mode = key.detach().float().flatten(1).softmax(-1).unflatten(1, key.shape[1:]).sum(1)
        hidden = self.head(torch.cat([self.trunk(features.mel), groove, mode], 1))
        return {
            "genre": self.genre(hidden),
            "mood": self.mood(hidden),
            "instruments": self.instruments(hidden),
            "tempo": tempo,
            "key": key,
        }


class FlawProbe(nn.Module):
    """Severity 0..1 of each flaw, [B, len(FLAWS)]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MelTrunk()
        self.rhythm = RhythmProbe()
        joined = 3 * TRUNK_WIDTH + 64 + TUNING_DIM + 3 * PROBE_MEL_BANDS + LEVEL_DIM
        self.head = nn.Sequential(
            nn.BatchNorm1d(joined), nn.Dropout(0.2), nn.Linear(joined, 256), nn.ReLU(),
            nn.Dropout(0.2), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, len(FLAWS)),
        )  # fmt: skip

    def forward(self, features: ProbeFeatures) -> Tensor:
        _, groove = self.rhythm(features.rhythm)
        points = torch.tensor([0.02, 0.5, 0.98])
        quantiles = torch.quantile(features.mel.float(), points, dim=2).permute(1, 0, 2).flatten(1)
        joined = [self.trunk(features.mel), groove, features.tuning.flatten(1), quantiles, features.level]
        return self.head(torch.cat([part.float() for part in joined], 1)).float().sigmoid()


class Probes(nn.Module):
    """Both probes: features -> attribute logits by name, and flaw severities."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = AttributeProbe()
        self.flaws = FlawProbe()


@torch.inference_mode()
def measure(probes: Probes, waves: Tensor, batch_size: int = 16) -> Measurement:
    """Predictions for `waves` [B, T] at 16 kHz, T at least 2.5 seconds. AudioError for anything else."""
    parts: list[Measurement] = []
    for chunk in waves.split(batch_size):
        parts.append(measure_features(probes, probe_features(chunk)))
    return Measurement(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Measurement)))


@torch.inference_mode()
def measure_features(probes: Probes, features: ProbeFeatures) -> Measurement:
    """The same from features."""
    logits = {name: value.float() for name, value in probes.attributes(features).items()}
    return Measurement(
        genre=logits["genre"].softmax(-1),
        mood=logits["mood"].softmax(-1),
        instruments=logits["instruments"].sigmoid(),
        tempo=logits["tempo"].softmax(-1),
        key=logits["key"].flatten(1).softmax(-1).unflatten(1, (12, len(MODES))),
        flaws=probes.flaws(features),
    )


def load_probes(folder: Path = SHIPPED_WEIGHTS / "probes") -> Probes:
    """The shipped probes, or those of `folder`, ready to measure. ModelError where they are missing or damaged."""
    probes = Probes()
    load_module(folder, probes)
    return probes.eval().requires_grad_(False)


def round_trip(waves: Tensor, codec: Codec | None, generator: torch.Generator) -> Tensor:
    """`waves` [B, T] cut to whole codec frames, and through the codec's posterior and decoder where one is given."""
    waves = waves[:, : waves.shape[1] // 1024 * 1024]
    return waves if codec is None else codec.decode(codec.encode(waves).sample(generator))

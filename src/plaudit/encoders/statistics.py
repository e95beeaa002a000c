"""The embedded world's stand-in for MERT: plain statistics of what is heard, with no learned weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.assets import EMBEDDED, load_module
from plaudit.encoders.blemishes import amplitude, flatness, level, timing, tuning
from plaudit.encoders.spectrum import (
    checked,
    log_bands,
    low_quantile,
    mel_filters,
    onset_strength,
    power,
    semitone_filters,
)

SAMPLE_RATE = 16000
BANDS = 64
WINDOW, HOP = 1024, 256
ONSET_WINDOW, ONSET_HOP, ONSET_BANDS, ONSET_GROUPS = 512, 128, 40, 4
PITCH_WINDOW, PITCH_HOP, PITCH_BANDS = 4096, 2048, 60


class StatisticsEmbedder(nn.Module):
    """A plaudit.types.AudioEmbedder: timbre, level, tuning, timing and harmony as one standardized vector (ours).

    `mean` and `std` come from 2,000 training clips (plaudit.embedded.statistics); a value further than 6 standard
    deviations out is drawn in to 6, so that one odd clip cannot swamp what listens to it. The vector does not depend
    on gain. Gradients flow through everything but counts, quantiles and the choice of peaks and tempo.
    """

    name = "statistics"
    sample_rate = SAMPLE_RATE
    mel: Tensor
    fine: Tensor
    pitch: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_filters(SAMPLE_RATE, WINDOW, BANDS), persistent=False)
        self.register_buffer("fine", mel_filters(SAMPLE_RATE, ONSET_WINDOW, ONSET_BANDS), persistent=False)
        self.register_buffer("pitch", semitone_filters(SAMPLE_RATE, PITCH_WINDOW, bands=PITCH_BANDS), persistent=False)
        with torch.no_grad():
            self.dim = self.statistics(torch.zeros(1, SAMPLE_RATE)).shape[1]
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("std", torch.ones(self.dim))

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 16 kHz, at least one second -> [B, dim], each about zero mean and unit variance."""
        raw = self.statistics(checked(wave, SAMPLE_RATE))
        return ((raw - self.mean) / self.std).clamp(-6, 6)

    def statistics(self, wave: Tensor) -> Tensor:
        """The same before standardization: [B, T] -> [B, dim]."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        spectrum = power(wave, WINDOW, HOP)
        mel = log_bands(spectrum, self.mel)  # [B, 64, N]
        floor, flat = low_quantile(mel, 0.05).unflatten(1, (16, -1)).mean(2), flatness(spectrum)
        del spectrum  # of a long piece it is large
        fine = log_bands(power(wave, ONSET_WINDOW, ONSET_HOP), self.fine, floor=1e-6)
        onsets = onset_strength(fine, ONSET_GROUPS)
        chroma = log_bands(power(wave, PITCH_WINDOW, PITCH_HOP), self.pitch).mean(-1).unflatten(1, (5, 12)).mean(1)
        return torch.cat(
            [
                mel.mean(-1),
                mel.std(-1),
                floor,
                flat,
                amplitude(wave),
                level(wave, SAMPLE_RATE),
                tuning(wave, SAMPLE_RATE),
                timing(onsets, SAMPLE_RATE / ONSET_HOP),
                chroma - chroma.mean(1, keepdim=True),
            ],
            1,
        )


def load_statistics(folder: Path = EMBEDDED / "statistics") -> StatisticsEmbedder:
    """The embedder with its shipped standardization."""
    embedder = StatisticsEmbedder()
    load_module(folder, embedder)
    return embedder.eval()

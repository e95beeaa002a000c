"""The embedded world's CLAP: music and captions in one space, where what belongs together lies close."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.assets import EMBEDDED, load_module, read_json
from plaudit.encoders.collapsed import check_texts_differ
from plaudit.encoders.spectrum import (
    autocorrelation,
    checked,
    log_bands,
    mel_filters,
    onset_strength,
    power,
    semitone_filters,
)
from plaudit.encoders.word_transformer import WordTransformer
from plaudit.encoders.words import WordBatch, batch_words, words

SAMPLE_RATE = 16000
MEL_BANDS, MEL_WINDOW, MEL_HOP = 96, 1024, 320
PITCH_BANDS, PITCH_WINDOW, PITCH_HOP = 60, 4096, 1600
ONSET_GROUPS, LAGS = 4, 100


@dataclass(frozen=True)
class Views:
    """What the audio tower sees of a clip.

    mel: [B, 96, T / 320], log-mel: timbre and rhythm. pitch: [B, 60, T / 1600], log energy per semitone: harmony.
    """

    mel: Tensor
    pitch: Tensor


class Listening(nn.Module):
    """Waveform -> Views. It has no weights; the filters are rebuilt, never stored."""

    mel: Tensor
    pitch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_filters(SAMPLE_RATE, MEL_WINDOW, MEL_BANDS), persistent=False)
        self.register_buffer("pitch", semitone_filters(SAMPLE_RATE, PITCH_WINDOW, bands=PITCH_BANDS), persistent=False)

    def forward(self, wave: Tensor) -> Views:
        """wave [B, T] at 16 kHz -> Views, the same at any gain. Silence maps to -1, loud bands to about +1."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        mel = log_bands(power(wave, MEL_WINDOW, MEL_HOP), self.mel)
        pitch = log_bands(power(wave, PITCH_WINDOW, PITCH_HOP), self.pitch)
        return Views(mel / 4 + 1, pitch / 4 + 1)


class AudioTower(nn.Module):
    """Views -> [B, dim]: a 2-d network for timbre, a 1-d one for harmony, an autocorrelation for rhythm (ours)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.timbre = nn.Sequential(
            *_conv2d(1, width, (5, 7), (2, 4)),
            *_conv2d(width, 2 * width, (3, 3), (2, 2)),
            *_conv2d(2 * width, 4 * width, (3, 3), (2, 2)),
            *_conv2d(4 * width, 8 * width, (3, 3), (2, 1)),
            nn.Flatten(1, 2),
            *_conv1d(8 * width * MEL_BANDS // 16, 16 * width, 1),
            *_conv1d(16 * width, 16 * width, 3),
        )
        self.harmony = nn.Sequential(*_conv1d(PITCH_BANDS, 128, 3), *_conv1d(128, 128, 3))
        self.rhythm = nn.Sequential(nn.Linear(ONSET_GROUPS * LAGS, 128), nn.ReLU())
        self.head = nn.Sequential(
            nn.Linear(32 * width + 256 + PITCH_BANDS + 128, 384), nn.BatchNorm1d(384), nn.ReLU(), nn.Linear(384, dim)
        )

    def forward(self, views: Views) -> Tensor:
        """-> [B, dim], not normalized; any length."""
        onsets = onset_strength(views.mel, ONSET_GROUPS)  # [B, 4, N]
        parts = (
            *_pooled(self.timbre(views.mel.unsqueeze(1))),
            *_pooled(self.harmony(views.pitch)),
            views.pitch.mean(-1),
            self.rhythm(autocorrelation(onsets.float(), LAGS).flatten(1)),
        )
        return self.head(torch.cat(parts, dim=1))


class EmbeddedCLAP(nn.Module):
    """A plaudit.types.Embedder over hashed words and 16 kHz audio, trained by plaudit.embedded.clap."""

    name = "embedded"
    sample_rate = SAMPLE_RATE

    def __init__(self, dim: int = 128, width: int = 16, text_width: int = 96, text_depth: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.config = {"dim": dim, "width": width, "text_width": text_width, "text_depth": text_depth}
        self.listening = Listening()
        self.audio_tower = AudioTower(dim, width)
        self.text_tower = WordTransformer(text_width, text_depth)
        self.text_head = nn.Linear(text_width, dim)

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 16 kHz, at least one second -> [B, dim], unit norm. Differentiable."""
        return self.embed_views(self.listening(checked(wave, SAMPLE_RATE)))

    def text(self, prompts: list[str]) -> Tensor:
        """Prompts -> [B, dim], unit norm."""
        return self.embed_words(batch_words([words(prompt) for prompt in prompts]))

    def embed_views(self, views: Views) -> Tensor:
        """What is heard -> [B, dim], unit norm."""
        return F.normalize(self.audio_tower(views).float(), dim=1)

    def embed_words(self, batch: WordBatch) -> Tensor:
        """What is read -> [B, dim], unit norm."""
        return F.normalize(self.read(batch).float(), dim=1)

    def read(self, batch: WordBatch) -> Tensor:
        """What is read, not normalized: [B, dim]."""
        return self.text_head(WordTransformer.pool(self.text_tower(batch), batch))


def load_embedded_clap(folder: Path = EMBEDDED / "clap") -> EmbeddedCLAP:
    """The shipped CLAP, ready to use (evaluation mode, float32); ModelError where it hardly tells texts apart."""
    clap = EmbeddedCLAP(**read_json(folder / "config.json"))
    load_module(folder, clap)
    clap.eval().requires_grad_(False)
    check_texts_differ(clap)
    return clap


def _conv2d(inputs: int, outputs: int, size: tuple[int, int], stride: tuple[int, int]) -> tuple[nn.Module, ...]:
    padding = size[0] // 2, size[1] // 2
    return nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _conv1d(inputs: int, outputs: int, size: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread over time of x [B, C, N]: two [B, C]."""
    mean = x.mean(-1)
    return mean, ((x - mean.unsqueeze(-1)).square().mean(-1) + 1e-6).sqrt()

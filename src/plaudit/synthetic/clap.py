"""The synthetic world's CLAP: music and captions in one space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.devices import device_of, reduced_precision
from plaudit.encoders.pretrained import check_texts_differ
from plaudit.encoders.spectrum import (
    LogBands,
    autocorrelation,
    checked,
    mel_filters,
    onset_strength,
    semitone_filters,
)
from plaudit.encoders.words import BUCKETS, LENGTH, WordBatch, batch_words, words
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import load_module, read_json


class WordTransformer(nn.Module):
    """Hashed words -> one vector per position, `depth` pre-norm transformer layers of `width` (ours)."""

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BUCKETS + 1, width, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(LENGTH, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, batch: WordBatch) -> Tensor:
        """-> [B, LENGTH, width], layer-normed, zero at padding."""
        longest = int((batch.index != 0).sum(1).max())
        index = batch.index[:, :longest]  # columns that are padding in every text are skipped
        present = index != 0  # [B, L]
        count = (batch.grams != 0).sum(1, keepdim=True)  # [V, 1]
        vectors = self.embedding(batch.grams).sum(1) / count.clamp(min=1).sqrt()  # [V, W]
        x = vectors[index] + self.position[:longest]  # [B, L, W]
        for block in self.blocks:
            x = block(x, present)
        return F.pad(self.norm(x) * present.unsqueeze(-1), (0, 0, 0, LENGTH - longest))

    @staticmethod
    def pool(tokens: Tensor, batch: WordBatch) -> Tensor:
        """The mean of each text's words, start mark included: [B, LENGTH, width] -> [B, width].

        Every word contributes to the mean from the first step of training; with the start mark's vector instead, rare
        facts such as the key took thousands of steps to be learned.
        """
        return tokens.sum(1) / (batch.index != 0).sum(1, keepdim=True)


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward layer, each normed before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """x [B, L, W] -> [B, L, W]; positions that are not `present` [B, L] are masked."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, W/H]
            for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm_feed(x))


CLAP_RATE = 16000
MEL_BANDS, MEL_WINDOW, MEL_HOP = 96, 1024, 320
PITCH_BANDS, PITCH_WINDOW, PITCH_HOP = 60, 4096, 1600
ONSET_GROUPS, LAGS = 4, 100


@dataclass(frozen=True)
class Views:
    """The audio tower's input.

    mel: [B, 96, T / 320], log-mel: timbre and rhythm. pitch: [B, 60, T / 1600], log energy per semitone: harmony.
    """

    mel: Tensor
    pitch: Tensor


class SpectralViews(nn.Module):
    """Waveform -> Views. It has no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogBands(mel_filters(CLAP_RATE, MEL_WINDOW, MEL_BANDS))
        self.pitch = LogBands(semitone_filters(CLAP_RATE, PITCH_WINDOW, bands=PITCH_BANDS))

    def forward(self, wave: Tensor) -> Views:
        """wave [B, T] at 16 kHz -> Views, the same at any gain. Silence maps to -1, loud bands to about +1."""
        wave = 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-5)
        mel = self.mel.of_wave(wave, MEL_WINDOW, MEL_HOP)
        pitch = self.pitch.of_wave(wave, PITCH_WINDOW, PITCH_HOP)
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
        timbre = self.timbre(views.mel.unsqueeze(1)).float()
        with reduced_precision(views.mel.device, enabled=False):  # the convolutions of timbre are what takes time
            onsets = onset_strength(views.mel, ONSET_GROUPS)  # [B, 4, N]
            parts = (
                *_pooled(timbre),
                *_pooled(self.harmony(views.pitch)),
                views.pitch.mean(-1),
                self.rhythm(autocorrelation(onsets.float(), LAGS).flatten(1)),
            )
            return self.head(torch.cat(parts, dim=1))


class SyntheticCLAP(nn.Module):
    """A plaudit.types.Embedder over hashed words and 16 kHz audio, trained by tools.synthetic.clap."""

    name = "synthetic"
    sample_rate = CLAP_RATE
    sample_bytes = 128

    def __init__(self, dim: int = 128, width: int = 16, text_width: int = 96, text_depth: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.config = {"dim": dim, "width": width, "text_width": text_width, "text_depth": text_depth}
        self.listening = SpectralViews()
        self.audio_tower = AudioTower(dim, width)
        self.text_tower = WordTransformer(text_width, text_depth)
        self.text_head = nn.Linear(text_width, dim)

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 16 kHz, at least one second -> [B, dim], unit norm. Differentiable."""
        with reduced_precision(wave.device, enabled=False):
            views = self.listening(checked(wave, CLAP_RATE))
        return self.embed_views(views)

    def text(self, prompts: list[str]) -> Tensor:
        """Prompts -> [B, dim], unit norm."""
        return self.embed_words(batch_words([words(prompt) for prompt in prompts]).to(device_of(self)))

    def embed_views(self, views: Views) -> Tensor:
        """Spectral views -> [B, dim], unit norm."""
        return F.normalize(self.audio_tower(views).float(), dim=1)

    def embed_words(self, batch: WordBatch) -> Tensor:
        """Words -> [B, dim], unit norm."""
        return F.normalize(self.read(batch).float(), dim=1)

    def read(self, batch: WordBatch) -> Tensor:
        """The same before normalization: [B, dim]."""
        return self.text_head(WordTransformer.pool(self.text_tower(batch), batch))


def load_synthetic_clap(folder: Path = SHIPPED_WEIGHTS / "clap") -> SyntheticCLAP:
    """The shipped CLAP (evaluation mode, float32); ModelError where its text embeddings have collapsed."""
    clap = SyntheticCLAP(**read_json(folder / "config.json"))
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

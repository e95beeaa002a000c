"""The three kinds of encoders: of prompts for the backbone, of audio, and of both in one space (CLAP).

Name them in a recipe or with the options of these names:

    models: {text_encoder: examples/encoders.py:HashedWords, clap: examples/encoders.py:WordAxes}

Entry points of installed packages: `plaudit.text_encoders`, `plaudit.audio_encoders`, `plaudit.claps`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.storage import seed_of
from plaudit.types import TextFeatures


class HashedWords:
    """Every word has a random vector, the same in every process; the pooled vector is their mean."""

    name, length, token_dim, pooled_dim = "hashed-words", 16, 32, 32

    def encode(self, prompts: list[str]) -> TextFeatures:
        tokens = torch.zeros(len(prompts), self.length, self.token_dim)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate(prompt.lower().split()[: self.length]):
                generator = torch.Generator().manual_seed(seed_of(word) % 2**63)
                tokens[row, place] = torch.randn(self.token_dim, generator=generator)
        return TextFeatures(tokens, tokens.sum(1) / tokens.any(2).sum(1, keepdim=True).clamp(min=1))


def levels(wave: Tensor, bands: int) -> Tensor:
    """wave [B, T] -> log energies over time in bands of equal width: [B, frames, bands]."""
    spectrum = torch.stft(wave, 1024, 512, window=torch.hann_window(1024, device=wave.device), return_complex=True)
    return F.adaptive_avg_pool1d(spectrum.abs().square().mT, bands).add(1e-8).log()


class BandLevels:
    """Mean and deviation over time of the energy in 16 bands."""

    name, sample_rate, dim = "band-levels", 16_000, 32

    def audio(self, wave: Tensor) -> Tensor:
        return torch.cat([levels(wave, 16).mean(1), levels(wave, 16).std(1)], 1)


class WordAxes:
    """An axis that words and sound share, from dark to bright. A CLAP's embeddings have unit norm."""

    name, sample_rate, dim = "word-axes", 16_000, 2

    def audio(self, wave: Tensor) -> Tensor:
        tilt = levels(wave, 8)[..., 2:].mean((1, 2)) - levels(wave, 8)[..., :2].mean((1, 2))
        return F.normalize(torch.stack([tilt / 4 + 1, torch.ones_like(tilt)], 1), dim=1)

    def text(self, prompts: list[str]) -> Tensor:
        tilt = [(" bright " in f" {text} ") - (" dark " in f" {text} ") for text in prompts]
        return F.normalize(torch.tensor([[2.0 * value, 1.0] for value in tilt]), dim=1)

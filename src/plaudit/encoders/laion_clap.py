"""LAION's CLAP: 48 kHz audio and captions in one space (Wu et al., arXiv 2211.06687).

The network is transformers' ClapModel with the weights of LAION's own files (plaudit.encoders.published); what is
around it, from waveforms to its spectrograms, follows LAION's code.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapModel
from transformers.audio_utils import mel_filter_bank

from plaudit.encoders.pretrained import Tokenizer
from plaudit.encoders.spectrum import checked

SAMPLE_RATE = 48000
SAMPLES = 10 * SAMPLE_RATE
"""What the audio tower hears at once."""

N_FFT, HOP = 1024, 480
LOW_HZ, HIGH_HZ = 50.0, 14000.0
TOKENS = 77
"""Tokens of RoBERTa per prompt; longer ones are cut."""


class LaionCLAP(nn.Module):
    """A plaudit.types.Embedder. Audio of any length up to 10 s is heard whole, of a longer one the centre.

    `name` is of the weights: embeddings under the same name are taken to be comparable.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, name: str, model: ClapModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.name = name
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.dim: int = model.config.projection_dim
        self.bands: int = model.audio_model.config.num_mel_bins

    def audio(self, wave: Tensor) -> Tensor:
        """wave [B, T] at 48 kHz in -1..1 -> [B, dim], unit norm; differentiable. AudioError where it can't be heard."""
        return self.embed_quantized(quantized(checked(wave, SAMPLE_RATE, seconds=N_FFT / SAMPLE_RATE)))

    def embed_quantized(self, wave: Tensor) -> Tensor:
        """wave [B, T] of 16-bit samples divided by 32767 -> [B, dim], unit norm."""
        features = clap_log_mel(ten_seconds(wave), self.bands)[:, None]  # [B, 1, 1001, bands]
        embedding: Tensor = self.model.get_audio_features(input_features=features).pooler_output
        return embedding

    def text(self, prompts: list[str]) -> Tensor:
        """Prompts -> [B, dim], unit norm."""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        device = self.model.device
        embedding: Tensor = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
        ).pooler_output
        return embedding


def quantized(wave: Tensor) -> Tensor:
    """wave [B, T] as 16-bit samples, cut at +-1 and rounded towards zero; gradients pass as if it were not done."""
    samples = (wave.clamp(-1, 1) * 32767).trunc() / 32767
    return wave + (samples - wave).detach() if wave.requires_grad else samples


def ten_seconds(wave: Tensor) -> Tensor:
    """wave [B, T] -> [B, 480000]: the centre of a longer one; a shorter one repeated whole, then zeros."""
    length = wave.shape[1]
    start = max(0, (length - SAMPLES) // 2)
    repeated = wave[:, start : start + SAMPLES].repeat(1, max(1, SAMPLES // length))
    return F.pad(repeated, (0, SAMPLES - repeated.shape[1]))


def clap_log_mel(wave: Tensor, bands: int) -> Tensor:
    """wave [B, T] -> power in Slaney's mel bands in dB: [B, T // 480 + 1, bands], not below -100."""
    window = torch.hann_window(N_FFT, device=wave.device)
    power = torch.stft(wave, N_FFT, HOP, window=window, return_complex=True).abs().square()  # [B, bins, N]
    return 10 * (power.transpose(1, 2) @ _filters(bands).to(wave).T).clamp(min=1e-10).log10()


@lru_cache(maxsize=2)
def _filters(bands: int) -> Tensor:
    with torch.inference_mode(False):  # training may use what evaluation has cached
        filters = mel_filter_bank(N_FFT // 2 + 1, bands, LOW_HZ, HIGH_HZ, SAMPLE_RATE, "slaney", "slaney")
        return torch.from_numpy(filters.T).float()

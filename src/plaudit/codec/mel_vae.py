"""MMAudio's mel VAE: log-mel spectrograms <-> latents at half their frame rate (Cheng et al., arXiv 2412.15322).

A magnitude-preserving convolutional network (EDM2: Karras et al., arXiv 2312.02696) in one dimension. Its weights are
normalized for use; plaudit.codec.mel_codec does that once when they are loaded, so the convolutions here are plain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.errors import AudioError, ModelError
from plaudit.types import Posterior

LEVELS = (1, 2, 4)
"""Widths of the levels, in units of the hidden width."""

ENCODER_BLOCKS, DECODER_BLOCKS = 2, 3
"""Residual blocks per level."""

MEL_STRIDE = 2
"""Mel frames to one latent."""

CONTEXT = 1 + 4 + 4 * DECODER_BLOCKS + DECODER_BLOCKS + 1
"""Latents on either side of one that its mel frames depend on by convolution; by attention they depend on all."""

EPSILON = 1e-4
"""Keeps the normalization of what is silent from dividing by zero, in activations as in weights."""

_LIMIT = 256.0
_RESIDUAL = 0.3
_SILU_GAIN = 0.596


@dataclass(frozen=True)
class MelVAEConfig:
    """Sizes: mel bands, latent channels, and the width of the outermost level."""

    bands: int
    latent_dim: int
    hidden: int


class MelVAE(nn.Module):
    """Log-mel spectrogram <-> latents. Buffers `mel_mean` and `mel_std` [bands] standardize the mel."""

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = MelEncoder(config), MelDecoder(config)
        self.register_buffer("mel_mean", torch.zeros(config.bands))
        self.register_buffer("mel_std", torch.ones(config.bands))

    def encode(self, mel: Tensor) -> Posterior:
        """Log-mel [B, bands, T], T even (see plaudit.codec.mel) -> posterior over [B, T / 2, latent_dim].

        AudioError for another shape. The log-variance is kept within -30..20.
        """
        if mel.ndim != 3 or mel.shape[1] != self.config.bands or mel.shape[2] == 0 or mel.shape[2] % MEL_STRIDE:
            raise AudioError(
                f"the mel VAE takes [batch, {self.config.bands}, frames] with an even number of frames, "
                f"got {list(mel.shape)}; pad or cut the audio"
            )
        standard = (mel - self.mel_mean[:, None]) / self.mel_std[:, None]
        mean, log_variance = self.encoder(standard).transpose(1, 2).chunk(2, -1)
        return Posterior(mean, (log_variance.clamp(-30, 20) / 2).exp())

    def decode(self, latents: Tensor) -> Tensor:
        """latents [B, N, latent_dim] -> log-mel [B, bands, 2N]; ModelError for another shape."""
        if latents.ndim != 3 or latents.shape[1] == 0 or latents.shape[2] != self.config.latent_dim:
            raise ModelError(
                f"the mel VAE decodes latents [batch, frames, {self.config.latent_dim}], got {list(latents.shape)}; "
                "use a model trained on its latents"
            )
        standard: Tensor = self.decoder(latents.transpose(1, 2))
        return standard * self.mel_std[:, None] + self.mel_mean[:, None]


class MelEncoder(nn.Module):
    """Standardized mel [B, bands, T] -> mean and log-variance [B, 2 latent_dim, T / 2]; downsamples after level 0."""

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__()
        widths = [resolution_level * config.hidden for resolution_level in LEVELS]
        self.conv_in = conv(config.bands, widths[0], 3)
        inputs = [widths[0], *widths[:-1]]
        self.levels = nn.ModuleList(
            resolution_level(narrow, wide, ENCODER_BLOCKS) for narrow, wide in zip(inputs, widths, strict=True)
        )
        self.downsample = Downsample(widths[0])
        self.middle = Middle(widths[-1])
        self.conv_out = conv(widths[-1], 2 * config.latent_dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for index, blocks in enumerate(self.levels):
            x = blocks(x)
            if index == 0:
                x = self.downsample(x)
        return self.conv_out(silu(self.middle(x)))


class MelDecoder(nn.Module):
    """Latents [B, latent_dim, N] -> standardized mel [B, bands, 2N].

    `levels` is in the encoder's order and run from the widest to the narrowest; upsamples after level 1.
    """

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__()
        widths = [resolution_level * config.hidden for resolution_level in LEVELS]
        self.conv_in = conv(config.latent_dim, widths[-1], 3)
        self.middle = Middle(widths[-1])
        inputs = [*widths[1:], widths[-1]]
        self.levels = nn.ModuleList(
            resolution_level(wide, narrow, DECODER_BLOCKS) for wide, narrow in zip(inputs, widths, strict=True)
        )
        self.upsample = Upsample(widths[1])
        self.conv_out = conv(widths[0], config.bands, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.conv_in(x))
        for index in reversed(range(len(self.levels))):
            x = self.levels[index](x)
            if index == 1:
                x = self.upsample(x)
        return self.conv_out(silu(x))


class Middle(nn.Module):
    """Block, attention, block at the widest level: [B, C, N] -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.attention, self.after = MelBlock(width, width), MelAttention(width), MelBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # Only here are activations between blocks not limited.
        x = self.before.unlimited(x)
        return limit(self.after.unlimited(self.attention(x)))


class MelBlock(nn.Module):
    """A residual block whose skip is its normalized input: [B, inputs, N] -> [B, outputs, N] within +-256."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def unlimited(self, x: Tensor) -> Tensor:
        x = unit_rms(x)
        return residual_sum(self.shortcut(x), self.conv2(silu(self.conv1(silu(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return limit(self.unlimited(x))


class MelAttention(nn.Module):
    """Self-attention over frames with one head and normalized queries, keys and values: [B, C, N] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = conv(width, 3 * width, 1), conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (unit_rms(part).transpose(1, 2) for part in self.qkv(x).chunk(3, 1))
        mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]  # [B, N, C]
        return residual_sum(x, self.out(mixed.transpose(1, 2)))


class Downsample(nn.Module):
    """[B, C, 2N] -> [B, C, N]: neighbours averaged between two pointwise convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width, 1), conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.avg_pool1d(self.conv1(x), MEL_STRIDE))


class Upsample(nn.Module):
    """[B, C, N] -> [B, C, 2N]: every frame twice, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(MEL_STRIDE, dim=2))


def conv(inputs: int, outputs: int, size: int) -> nn.Conv1d:
    """A convolution of odd `size` that keeps the length; every one here has no bias."""
    return nn.Conv1d(inputs, outputs, size, padding=size // 2, bias=False)


def resolution_level(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """`count` residual blocks, the first of which changes the width."""
    return nn.Sequential(*(MelBlock(inputs if index == 0 else outputs, outputs) for index in range(count)))


def unit_rms(x: Tensor) -> Tensor:
    """x [B, C, N] with a root mean square over channels of about 1: x / (1e-4 + ||x|| / sqrt(C))."""
    return x / (EPSILON + x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5)


def silu(x: Tensor) -> Tensor:
    """SiLU, scaled to keep the magnitude of normal input."""
    return F.silu(x) / _SILU_GAIN


def residual_sum(skip: Tensor, branch: Tensor) -> Tensor:
    """0.7 skip + 0.3 branch, scaled to keep the magnitude of independent summands."""
    return skip.lerp(branch, _RESIDUAL) / ((1 - _RESIDUAL) ** 2 + _RESIDUAL**2) ** 0.5


def limit(x: Tensor) -> Tensor:
    """x within +-256."""
    return x.clamp(-_LIMIT, _LIMIT)

"""BigVGAN v2: log-mel spectrogram -> waveform (Lee et al., arXiv 2206.04658; NVIDIA's v2 releases).

Transposed convolutions raise the rate step by step; after each, the mean of three residual blocks with periodic
activations. An activation adds overtones, so each runs at twice the rate between two low-pass filters.
"""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plaudit.errors import ModelError

TAPS = 12
"""Length of the low-pass filters around every activation."""


@dataclass(frozen=True)
class BigVGANConfig:
    """Sizes of the vocoder.

    upsample_rates, upsample_kernels: one per stage; their product is the samples per mel frame. channels: before the
    first stage, halved by each. block_kernels: one residual block each per stage, with its `block_dilations`.
    final_tanh: squash the waveform by tanh, as the first version did, instead of cutting it at +-1.
    """

    bands: int
    channels: int
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    block_kernels: tuple[int, ...]
    block_dilations: tuple[tuple[int, ...], ...]
    final_bias: bool
    final_tanh: bool

    def __post_init__(self) -> None:
        if len(self.upsample_rates) != len(self.upsample_kernels):
            raise ModelError(f"{len(self.upsample_rates)} upsampling rates, {len(self.upsample_kernels)} kernels")
        if len(self.block_kernels) != len(self.block_dilations):
            raise ModelError(f"{len(self.block_kernels)} block kernels, {len(self.block_dilations)} lists of dilations")
        if self.channels % 2 ** len(self.upsample_rates):
            raise ModelError(f"{self.channels} channels cannot be halved {len(self.upsample_rates)} times")

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.upsample_rates)

    @property
    def context(self) -> int:
        """Mel frames on either side of one on which its samples depend, at most."""
        activation = TAPS // 2 + 1  # two filters of TAPS taps at twice the rate
        block = max(
            sum((kernel - 1) // 2 * (dilation + 1) + 2 * activation for dilation in dilations)
            for kernel, dilations in zip(self.block_kernels, self.block_dilations, strict=True)
        )
        rates = list(itertools.accumulate(self.upsample_rates, operator.mul))
        stages = sum((kernel + block) / rate for kernel, rate in zip(self.upsample_kernels, rates, strict=True))
        return math.ceil(3 + stages + (activation + 3) / self.hop)


class BigVGAN(nn.Module):
    """Log-mel [B, bands, N] -> waveform [B, N * hop] within -1..1."""

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv1d(config.bands, config.channels, 7, padding=3)
        widths = [config.channels >> stage for stage in range(len(config.upsample_rates) + 1)]
        self.stages = nn.ModuleList(
            UpsamplingStage(wide, narrow, rate, kernel, config)
            for wide, narrow, rate, kernel in zip(
                widths[:-1], widths[1:], config.upsample_rates, config.upsample_kernels, strict=True
            )
        )
        self.activation = AntiAliasedSnake(widths[-1])
        self.conv_out = nn.Conv1d(widths[-1], 1, 7, padding=3, bias=config.final_bias)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel of plaudit.codec.mel -> waveform; ModelError for a mel of another shape."""
        if mel.ndim != 3 or mel.shape[1] != self.config.bands or mel.shape[2] == 0:
            raise ModelError(f"the vocoder takes mels [batch, {self.config.bands}, frames], got {list(mel.shape)}")
        x = self.conv_in(mel)
        for stage in self.stages:
            x = stage(x)
        wave: Tensor = self.conv_out(self.activation(x))[:, 0]
        return wave.tanh() if self.config.final_tanh else wave.clamp(-1, 1)


class UpsamplingStage(nn.Module):
    """[B, inputs, N] -> [B, outputs, N * rate]."""

    def __init__(self, inputs: int, outputs: int, rate: int, kernel: int, config: BigVGANConfig) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)
        self.blocks = nn.ModuleList(
            ResidualBlock(outputs, size, dilations)
            for size, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        # With gradients, what a block computes inside is computed again: ten seconds would take tens of gigabytes.
        outputs = [checkpoint(block, x, use_reentrant=False) if x.requires_grad else block(x) for block in self.blocks]
        total = outputs[0]
        for other in outputs[1:]:
            total = total + other
        return total / len(outputs)


class ResidualBlock(nn.Module):
    """Residual layers of growing dilation, each followed by a convolution without: [B, C, N] -> the same shape."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


class Layer(nn.Module):
    """Activation, dilated convolution, activation, convolution: [B, C, N] -> the same shape."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.activation1, self.activation2 = AntiAliasedSnake(width), AntiAliasedSnake(width)
        self.conv1 = nn.Conv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.activation2(self.conv1(self.activation1(x))))


class AntiAliasedSnake(nn.Module):
    """SnakeBeta at twice the rate: x + sin(alpha x)^2 / (beta + 1e-9), alpha and beta per channel, kept as logarithms.

    [B, C, N] -> the same shape. Snake is from Ziyin et al. (arXiv 2006.08195).
    """

    lowpass: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_alpha, self.log_beta = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("lowpass", half_band_filter(TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = upsample(x, self.lowpass)
        alpha, beta = self.log_alpha.exp()[:, None], self.log_beta.exp()[:, None]
        return downsample(x + (alpha * x).sin().square() / (beta + 1e-9), self.lowpass)


def upsample(x: Tensor, lowpass: Tensor) -> Tensor:
    """x [B, C, N] at twice the rate: [B, C, 2N]. `lowpass` [K], K even; the ends are held."""
    channels, margin = x.shape[1], len(lowpass) // 2
    padded = F.pad(x, (margin, margin), mode="replicate")
    raised = F.conv_transpose1d(padded, 2 * lowpass.expand(channels, 1, -1), stride=2, groups=channels)
    start = len(lowpass) + margin - 1
    return raised[..., start : start + 2 * x.shape[2]]


def downsample(x: Tensor, lowpass: Tensor) -> Tensor:
    """x [B, C, 2N] at half the rate: [B, C, N]. `lowpass` [K], K even; the ends are held."""
    channels, margin = x.shape[1], len(lowpass) // 2
    padded = F.pad(x, (margin - 1, margin), mode="replicate")
    return F.conv1d(padded, lowpass.expand(channels, 1, -1), stride=2, groups=channels)


def half_band_filter(taps: int) -> Tensor:
    """Kaiser-windowed sinc that passes the lower half of the band, of unit sum: [taps], `taps` even.

    The transition is 0.6 of the new Nyquist frequency wide on either side; from that, Kaiser's formulas give the
    attenuation in dB and the window's shape (Kaiser & Schafer, IEEE Trans. ASSP 28, 1980).
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * 0.3 + 7.95
    shape = 0.1102 * (attenuation - 8.7)  # holds above 50 dB, as with 12 taps or more
    # No checkpoint holds this, so it must be real also where a module is built on the meta device.
    window = torch.kaiser_window(taps, periodic=False, beta=shape, dtype=torch.float64, device="cpu")
    at = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    response = window * torch.sinc(at / 2)
    return (response / response.sum()).float()

"""The layers a FluxAudio block is made of: sequence convolution, gated MLP, rotary positions, time sinusoids."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SequenceConv(nn.Conv1d):
    """A 1-d convolution over the sequence, padded to keep its length: [B, N, in] -> [B, N, out]."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, bias: bool = True) -> None:
        super().__init__(in_dim, out_dim, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def projection(in_dim: int, out_dim: int, kernel: int, bias: bool = True) -> nn.Module:
    """[B, N, in] -> [B, N, out]: a linear layer where `kernel` is 1, a convolution over the sequence otherwise."""
    if kernel == 1:
        return nn.Linear(in_dim, out_dim, bias)
    return SequenceConv(in_dim, out_dim, kernel, bias)


class GatedMLP(nn.Module):
    """down(silu(gate x) * up x), without biases: [B, N, D] -> [B, N, D], `inner` wide between.

    The gate and up projections read the same input, so they are one projection with twice the outputs.
    """

    def __init__(self, dim: int, inner: int, kernel: int = 1) -> None:
        super().__init__()
        self.gate_up = projection(dim, 2 * inner, kernel, bias=False)
        self.down = projection(inner, dim, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm without affine, then x (1 + scale) + shift. x [B, N, D]; shift and scale [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


@lru_cache(maxsize=32)
def rotary_table(length: int, dim: int, device: torch.device) -> Tensor:
    """Cosine and sine of position times 10000^(-2i / dim), for positions from 0: float32 [length, dim / 2, 2]."""
    # A table made inside inference mode could never take part in training, and this one is cached for both.
    with torch.inference_mode(False):
        frequencies = 10000.0 ** (-torch.arange(0, dim, 2, device=device).double() / dim)
        angles = torch.arange(length, device=device).double()[:, None] * frequencies
        return torch.stack((angles.cos().float(), angles.sin().float()), -1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary embedding: adjacent channels of x [..., d], float32, rotate in pairs by the angles of `table`
    [..., d / 2, 2], whose leading axes broadcast."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler generates no code for complex numbers
        (real, imaginary), (cosine, sine) = pairs.unbind(-1), table.unbind(-1)
        return torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), -1).flatten(-2)
    # Eagerly, one complex product moves less memory than six real operations.
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)).flatten(-2)


def inverse_rms(x: Tensor) -> Tensor:
    """What RMSNorm multiplies x [..., d] by, float32 [..., 1]: 1 / sqrt(mean square + PyTorch's default epsilon)."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return (mean_square + torch.finfo(torch.float32).eps).rsqrt()


def time_features(t: Tensor, dim: int = 256) -> Tensor:
    """Sinusoids of t itself: t [B] -> [B, dim], cosines first, frequencies 10000^(-2i / dim), always float32."""
    half = torch.arange(dim // 2, device=t.device, dtype=torch.float32)
    angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * 2 * half / dim)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] -> [B, D]."""

    features = 256

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.features, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(time_features(t, self.features))

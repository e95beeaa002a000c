"""FluxAudio's layers and blocks, with their operation counts."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.forms import attend, convolve


def linear_flops(rows: int, inputs: int, outputs: int) -> int:
    """Operations of a matrix product; a convolution is one with kernel x channels as its inputs."""
    return 2 * rows * inputs * outputs


def attention_flops(dim: int, queries: int, keys: int) -> int:
    """Operations of both products of attention, over all heads."""
    return 2 * linear_flops(queries, dim, keys)


class SequenceConv(nn.Conv1d):
    """A 1-d convolution over the sequence, padded to keep its length: [B, N, in] -> [B, N, out]."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, bias: bool = True) -> None:
        super().__init__(in_dim, out_dim, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias)


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

    @staticmethod
    def flops(rows: int, dim: int, inner: int, kernel: int = 1) -> int:
        """Operations for `rows` rows."""
        return linear_flops(rows, kernel * dim, 2 * inner) + linear_flops(rows, kernel * inner, dim)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm without affine, then x (1 + scale) + shift. x [B, N, D]; shift and scale [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


@lru_cache(maxsize=32)
def rotary_table(length: int, dim: int, device: torch.device) -> Tensor:
    """Cosine and sine of position times 10000^(-2i / dim), for positions from 0: float32 [length, dim / 2, 2]."""
    # A tensor from inference mode cannot be used in training, and this one is cached for both.
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
    """The factor of RMSNorm for x [..., d], float32 [..., 1]: 1 / sqrt(mean square + PyTorch's default epsilon)."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return (mean_square + torch.finfo(torch.float32).eps).rsqrt()


def time_frequencies(dim: int, device: torch.device | None = None) -> Tensor:
    """The frequencies of `time_features`, in radians: [dim / 2], float32."""
    half = torch.arange(dim // 2, device=device, dtype=torch.float32)
    return torch.exp(-math.log(10000.0) * 2 * half / dim)


def time_features(t: Tensor, dim: int = 256) -> Tensor:
    """Sinusoids of t itself: t [B] -> [B, dim], cosines first, frequencies 10000^(-2i / dim), always float32."""
    angles = t.float()[:, None] * time_frequencies(dim, t.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] -> [B, D]."""

    features = 256

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.features, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(time_features(t, self.features))


QKV = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each [B, H, N, d]."""


def concatenate(first: QKV, second: QKV) -> QKV:
    """Two streams' queries, keys and values as one sequence, `first` first."""
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(first, second, strict=True))
    return q, k, v


class Stream(nn.Module):
    """One stream's half of a block: everything but the attention itself. Kernel 3 for audio, 1 for text.

    A pre-only stream ends with its queries, keys and values.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, kernel: int, pre_only: bool = False) -> None:
        super().__init__()
        self.heads, self.pre_only = heads, pre_only
        self.modulation = nn.Linear(dim, (2 if pre_only else 6) * dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.query_norm = nn.RMSNorm(dim // heads)
        self.key_norm = nn.RMSNorm(dim // heads)
        if not pre_only:
            self.out = projection(dim, dim, kernel)
            self.mlp = GatedMLP(dim, mlp_dim, kernel)

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition [B, 1, D] -> shift, scale, gate of the attention, then of the MLP, each [B, 1, D]."""
        return self.modulation(F.silu(condition)).chunk(2 if self.pre_only else 6, dim=-1)

    def queries_keys_values(self, x: Tensor, modulations: tuple[Tensor, ...], table: Tensor) -> QKV:
        """x [B, N, D] -> normalized and rotated q, k, and v; `table` is that of positions from the first row's on."""
        batch, length, dim = x.shape
        shift, scale = modulations[:2]
        qkv = self.qkv(modulate(x, shift, scale)).view(batch, length, 3, self.heads, dim // self.heads)
        # Norms and rotations are in float32 under autocast too: bfloat16 positions would drift.
        qk = qkv[:, :, :2].float()  # [B, N, 2, H, d]
        gains = torch.stack((self.query_norm.weight, self.key_norm.weight))[:, None]  # [2, 1, d]
        table = table[:length, None, None]
        # The norm's factor is one number per head and commutes with the rotation.
        qk = (rotate(qk * gains, table) * inverse_rms(qk)).permute(2, 0, 3, 1, 4)
        q, k = qk.to(qkv.dtype, memory_format=torch.contiguous_format)  # each [B, H, N, d], as attention reads them
        return q, k, qkv[:, :, 2].transpose(1, 2)

    def finish(self, x: Tensor, attended: Tensor, modulations: tuple[Tensor, ...]) -> Tensor:
        """x and its attended values, both [B, N, D] -> the stream after this block; a pre-only one is unchanged."""
        if self.pre_only:
            return x
        _, _, attention_gate, shift, scale, mlp_gate = modulations
        x = torch.addcmul(x, self.out(attended), attention_gate)
        return torch.addcmul(x, self.mlp(modulate(x, shift, scale)), mlp_gate)

    @staticmethod
    def flops(rows: int, dim: int, inner: int, kernel: int = 1, pre_only: bool = False, modulated: bool = True) -> int:
        """Operations for `rows` rows, without the attention; `modulated`: with the modulations, which are one row."""
        total = linear_flops(rows, dim, 3 * dim)
        if modulated:
            total += linear_flops(1, dim, (2 if pre_only else 6) * dim)
        if not pre_only:
            total += linear_flops(rows, kernel * dim, dim) + GatedMLP.flops(rows, dim, inner, kernel)
        return total


class FusedBlock(nn.Module):
    """An audio-only block: self-attention over the latents."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.audio = Stream(dim, heads, mlp_dim, kernel=3)

    def forward(self, audio: Tensor, condition: Tensor, table: Tensor) -> Tensor:
        """audio [B, N, D], condition [B, 1, D], a `rotary_table` of N positions or more -> [B, N, D]."""
        modulations = self.audio.modulations(condition)
        attended = attend(*self.audio.queries_keys_values(audio, modulations, table))
        return self.audio.finish(audio, attended, modulations)


class JointBlock(nn.Module):
    """A block in which audio and text attend to both; the last one's text stream is pre-only."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, pre_only: bool) -> None:
        super().__init__()
        self.audio = Stream(dim, heads, mlp_dim, kernel=3)
        self.text = Stream(dim, heads, mlp_dim, kernel=1, pre_only=pre_only)

    def forward(
        self,
        audio: Tensor,
        text: Tensor,
        condition: Tensor,
        table: Tensor,
        token: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """audio [B, N, D], text [B, L, D], condition [B, 1, D] -> audio, text and token after the block.

        table: a `rotary_table` of as many positions as either sequence has.
        token [B, 1, D] (ours) is one more text token, at position L. Even a zero token changes attention, so attention
        is computed with and without it, and `gate` [D] interpolates from the one without (gate 0, exactly the block
        without a token) to the one with it (gate 1, an ordinary text token).
        """
        audio_modulations = self.audio.modulations(condition)
        text_modulations = self.text.modulations(condition)
        qkv = concatenate(
            self.audio.queries_keys_values(audio, audio_modulations, table),
            self.text.queries_keys_values(text, text_modulations, table),
        )
        attended = attend(*qkv)  # [B, N + L, D]
        length = attended.shape[1]
        if token is not None and gate is not None:
            token_qkv = self.text.queries_keys_values(token, text_modulations, table[text.shape[1] :])
            with_token = attend(*concatenate(qkv, token_qkv))  # [B, N + L + 1, D]
            attended = attended + gate.to(attended.dtype) * (with_token[:, :length] - attended)
            token = self.text.finish(token, with_token[:, length:], text_modulations)
        audio_attended, text_attended = attended.split((audio.shape[1], text.shape[1]), dim=1)
        return (
            self.audio.finish(audio, audio_attended, audio_modulations),
            self.text.finish(text, text_attended, text_modulations),
            token,
        )

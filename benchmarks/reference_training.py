"""FluxAudio and its training loop in a plain form: what the benchmark of training compares with.

The layers call PyTorch's own convolutions and attention, the rotary embedding is a complex product, the optimizer goes
parameter by parameter, and PyTorch's threads share every operation. Nothing here follows changes of the package: it
stays as it is, so that figures of different times have the same reference.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Generator
from contextlib import closing
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.config import FluxAudioConfig
from plaudit.prefetch import prefetch
from plaudit.training.loop import Objective
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures


class SequenceConv(nn.Conv1d):
    """A convolution over the sequence: [B, N, in] -> [B, N, out]."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, bias: bool = True) -> None:
        super().__init__(in_dim, out_dim, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def projection(in_dim: int, out_dim: int, kernel: int, bias: bool = True) -> nn.Module:
    """A linear layer where `kernel` is 1, a convolution otherwise."""
    return nn.Linear(in_dim, out_dim, bias) if kernel == 1 else SequenceConv(in_dim, out_dim, kernel, bias)


class GatedMLP(nn.Module):
    """down(silu(gate x) * up x), without biases."""

    def __init__(self, dim: int, inner: int, kernel: int = 1) -> None:
        super().__init__()
        self.gate_up = projection(dim, 2 * inner, kernel, bias=False)
        self.down = projection(inner, dim, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without affine, then x (1 + scale) + shift."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), 1 + scale)


@lru_cache(maxsize=32)
def rotary_table(length: int, dim: int) -> Tensor:
    """Cosine and sine of position times 10000^(-2i / dim), for positions from 0: [length, dim / 2, 2]."""
    frequencies = 10000.0 ** (-torch.arange(0, dim, 2).double() / dim)
    angles = torch.arange(length).double()[:, None] * frequencies
    return torch.stack((angles.cos().float(), angles.sin().float()), -1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Adjacent channels rotate in pairs, as complex numbers."""
    pairs = x.unflatten(-1, (-1, 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)).flatten(-2)


def inverse_rms(x: Tensor) -> Tensor:
    """The factor of RMSNorm."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return (mean_square + torch.finfo(torch.float32).eps).rsqrt()


class TimeEmbedding(nn.Module):
    """t [B] -> [B, D]."""

    features = 256

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.features, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = torch.arange(self.features // 2, dtype=torch.float32)
        angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * 2 * half / self.features)
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))


QKV = tuple[Tensor, Tensor, Tensor]


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Three times [B, H, N, d] -> [B, N, H d]."""
    return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """One stream's half of a block."""

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
        """Shift, scale and gate of the attention, then of the MLP."""
        return self.modulation(F.silu(condition)).chunk(2 if self.pre_only else 6, dim=-1)

    def queries_keys_values(self, x: Tensor, modulations: tuple[Tensor, ...]) -> QKV:
        """Normalized and rotated q, k, and v."""
        batch, length, dim = x.shape
        shift, scale = modulations[:2]
        qkv = self.qkv(modulate(x, shift, scale)).view(batch, length, 3, self.heads, dim // self.heads)
        qk = qkv[:, :, :2].float()
        gains = torch.stack((self.query_norm.weight, self.key_norm.weight))[:, None]
        table = rotary_table(length, dim // self.heads)[:, None, None]
        q, k = (rotate(qk * gains, table) * inverse_rms(qk)).to(qkv.dtype).permute(2, 0, 3, 1, 4)
        return q, k, qkv[:, :, 2].transpose(1, 2)

    def finish(self, x: Tensor, attended: Tensor, modulations: tuple[Tensor, ...]) -> Tensor:
        """The stream after its block."""
        if self.pre_only:
            return x
        _, _, attention_gate, shift, scale, mlp_gate = modulations
        x = torch.addcmul(x, self.out(attended), attention_gate)
        return torch.addcmul(x, self.mlp(modulate(x, shift, scale)), mlp_gate)


class FusedBlock(nn.Module):
    """An audio-only block."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.audio = Stream(dim, heads, mlp_dim, kernel=3)

    def forward(self, audio: Tensor, condition: Tensor) -> Tensor:
        modulations = self.audio.modulations(condition)
        attended = attend(*self.audio.queries_keys_values(audio, modulations))
        return self.audio.finish(audio, attended, modulations)


class JointBlock(nn.Module):
    """A block in which audio and text attend to both."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, pre_only: bool) -> None:
        super().__init__()
        self.audio = Stream(dim, heads, mlp_dim, kernel=3)
        self.text = Stream(dim, heads, mlp_dim, kernel=1, pre_only=pre_only)

    def forward(self, audio: Tensor, text: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        of_audio, of_text = self.audio.modulations(condition), self.text.modulations(condition)
        both = (self.audio.queries_keys_values(audio, of_audio), self.text.queries_keys_values(text, of_text))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*both, strict=True))
        audio_attended, text_attended = attend(q, k, v).split((audio.shape[1], text.shape[1]), dim=1)
        return self.audio.finish(audio, audio_attended, of_audio), self.text.finish(text, text_attended, of_text)


class FinalLayer(nn.Module):
    """Modulated norm and a wide convolution."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = SequenceConv(dim, latent_dim, kernel=7)

    def forward(self, audio: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=-1)
        return self.out(modulate(audio, shift, scale))


class ScoreEmbedder(nn.Module):
    """Standardized scores -> embeddings; NaN gives the null embedding."""

    def __init__(self, features: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        self.null = nn.Parameter(torch.zeros(dim))

    def forward(self, score: Tensor) -> Tensor:
        dropped = score.isnan()
        exponents = torch.linspace(0, 1, self.features // 2)
        angles = 2 * torch.pi * score.masked_fill(dropped, 0.0).float()[:, None] / 32 * 16**exponents
        embedding = self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))
        return torch.where(dropped[:, None], self.null.to(embedding.dtype), embedding)


class Score(nn.Module):
    """The published injection: the embedding is added to the global condition."""

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__()
        self.embedder = ScoreEmbedder(config.score_features, config.score_hidden, config.hidden_dim)


class ReferenceFluxAudio(nn.Module):
    """FluxAudio with the injection global_adaln; parameters have the package's names."""

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__()
        dim, inner, joint = config.hidden_dim, config.mlp_dim, config.depth - config.fused_depth
        self.time = TimeEmbedding(dim)
        self.pooled_in = nn.Sequential(nn.Linear(config.text_c_dim, dim), GatedMLP(dim, inner))
        self.text_in = nn.Sequential(nn.Linear(config.text_dim, dim), GatedMLP(dim, inner))
        self.audio_in = nn.Sequential(
            SequenceConv(config.latent_dim, dim, kernel=7), nn.SELU(), GatedMLP(dim, inner, kernel=7)
        )
        self.joint_blocks = nn.ModuleList(
            JointBlock(dim, config.num_heads, inner, pre_only=i == joint - 1) for i in range(joint)
        )
        self.fused_blocks = nn.ModuleList(FusedBlock(dim, config.num_heads, inner) for _ in range(config.fused_depth))
        self.final = FinalLayer(dim, config.latent_dim)
        self.score = Score(config)
        self.register_buffer("score_mean", torch.tensor(0.0))
        self.register_buffer("score_std", torch.tensor(1.0))

    score_mean: Tensor
    score_std: Tensor

    def forward(self, latents: Tensor, text: TextFeatures, t: Tensor, score: Tensor) -> Tensor:
        """Velocity [B, N, C]."""
        e = self.score.embedder((score - self.score_mean) / self.score_std)
        words, pooled = self.text_in(text.tokens).float(), self.pooled_in(text.pooled)
        condition = ((self.time(t) + pooled).float() + e)[:, None]
        audio = self.audio_in(latents).float()
        for joint in self.joint_blocks:
            audio, words = joint(audio, words, condition)
        for fused in self.fused_blocks:
            audio = fused(audio, condition)
        return self.final(audio, condition)


def exponent(sigma_rel: float) -> float:
    """gamma of a running average of this relative length."""
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class Averages:
    """Two running averages of the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.powers = [exponent(sigma_rel) for sigma_rel in (0.05, 0.10)]
        self.averages = [{name: p.detach().float().clone() for name, p in model.named_parameters()} for _ in range(2)]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Average in the weights after update `step`."""
        parameters = [p.detach().float() for _, p in model.named_parameters()]
        for gamma, average in zip(self.powers, self.averages, strict=True):
            keep = (1 - 1 / step) ** (gamma + 1)
            torch._foreach_lerp_([value.detach() for value in average.values()], parameters, 1 - keep)


def reference_updates(
    network: nn.Module, objective: Objective, settings: TrainSettings, bf16: bool = True
) -> Generator[float]:
    """Train for `settings.steps` updates on the CPU; the loss of each, after the update."""
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, (0.9, 0.95), settings.adam_eps, settings.weight_decay,
        foreach=False, fused=False,
    )  # fmt: skip
    averages, recent = Averages(network), deque[float](maxlen=50)
    batches = prefetch(
        lambda index: objective.draw(index, slice(0, settings.batch)), range(settings.steps), depth=2, threads=1
    )
    network.train()
    with closing(batches):
        for step, inputs in enumerate(batches, start=1):
            network.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                values = objective.loss(network, inputs)
            values["loss"].backward()
            norm = torch.nn.utils.clip_grad_norm_(list(network.parameters()), settings.max_grad_norm)
            loss, length = torch.stack([values["loss"].detach().float(), norm]).tolist()
            if not math.isfinite(loss + length) or (len(recent) > 9 and loss > 100 * statistics.median(recent)):
                raise RuntimeError(f"the reference lost its loss at update {step}")
            recent.append(loss)
            optimizer.step()
            averages.update(network, step)
            yield loss

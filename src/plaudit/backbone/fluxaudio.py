"""FluxAudio: the flow-matching transformer over audio latents, after MeanAudio (arXiv 2508.06098).

Autocast casts every weight to bfloat16 at every step; the copy for inference does that once.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.base import Backbone, Conditions, build_injection
from plaudit.backbone.config import BackboneConfig, FluxAudioConfig
from plaudit.backbone.forms import LONGEST
from plaudit.backbone.layers import (
    FusedBlock,
    GatedMLP,
    JointBlock,
    SequenceConv,
    Stream,
    TimeEmbedding,
    attention_flops,
    linear_flops,
    modulate,
    rotary_table,
)
from plaudit.types import TextFeatures


class FinalLayer(nn.Module):
    """Modulated norm and a wide convolution back to latents: [B, N, D] -> [B, N, C]."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = SequenceConv(dim, latent_dim, kernel=7)

    def forward(self, audio: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=-1)
        return self.out(modulate(audio, shift, scale))


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype`, that of a convolution in memory as the matrix of its product."""
    if weight.dim() < 3:
        return weight.to(dtype)
    return weight.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format).transpose(1, 2)


class FluxAudio(Backbone):
    """Joint blocks, in which audio and text attend to both, then audio-only blocks; every block is modulated by time,
    pooled text and, depending on the injection, the score."""

    Config: ClassVar[type[BackboneConfig]] = FluxAudioConfig
    # Every block starts as the identity.
    zero_init: ClassVar[str] = r"modulation\.|^final\.out\."
    small_init: ClassVar[str] = r"^time\."

    config: FluxAudioConfig

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__(config)
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
        self.score = build_injection(config)

    def conditions(self, text: TextFeatures, score: Tensor | None = None) -> Conditions:
        e = self.embed_score(score, len(text))  # [B, D]
        words = self.score.text_input(self.text_in(text.tokens).float(), e)
        return Conditions(words, self.pooled_in(text.pooled), e)

    def velocity(self, latents: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        return self.transform(latents, conditions, self.time(t))

    def transform(self, latents: Tensor, conditions: Conditions, time: Tensor) -> Tensor:
        """The network's output [B, N, C] under the embedding of time, [B, D] or [1, D]."""
        # The streams and the condition are float32 under autocast too: what a block adds is small beside them.
        condition = (time + conditions.pooled).float()
        condition = self.score.condition(condition, conditions.e)[:, None]  # [B, 1, D]
        audio = self.audio_in(latents).float()  # [M, N, D]
        if len(conditions) != len(audio):
            audio = audio.repeat(len(conditions) // len(audio), 1, 1)
        audio = self.score.audio_input(audio, conditions.e)  # [B, N, D], with any token before them
        words, token = conditions.words, self.score.text_token(conditions.e)  # [B, L, D], [B, 1, D] or None
        positions = max(audio.shape[1], words.shape[1] + 1)
        # One table for all blocks: computing it takes longer than using it.
        table = rotary_table(positions, self.config.head_dim, audio.device)
        for index, joint in enumerate(self.joint_blocks):
            audio = self.score.before_block(index, audio, conditions.e)
            audio, words, token = joint(audio, words, condition, table, token, self.score.token_gate(index))
        for index, fused in enumerate(self.fused_blocks, start=len(self.joint_blocks)):
            audio = self.score.before_block(index, audio, conditions.e)
            audio = fused(audio, condition, table)
        return self.final(audio[:, self.score.audio_tokens :], condition)

    def for_inference(self, dtype: torch.dtype) -> FluxAudio:
        """A copy whose matrices are held in `dtype`; all else is shared with the model."""
        copied = super().for_inference(dtype)
        assert isinstance(copied, FluxAudio)
        if dtype == torch.float32:
            return copied
        for module in copied.modules():
            if isinstance(module, SequenceConv | nn.Linear):
                for part, value in list(module.named_parameters()):
                    setattr(module, part, nn.Parameter(cast(value, dtype), requires_grad=False))
        return copied

    def forward_flops(self, frames: int, text_length: int | None = None) -> int:
        """Matrix products, convolutions and attention; without norms, activations and modulation, as is usual."""
        config, words = self.config, self.config.text_length if text_length is None else text_length
        dim, inner, joint = config.hidden_dim, config.mlp_dim, config.depth - config.fused_depth
        total = linear_flops(1, TimeEmbedding.features, dim) + linear_flops(1, dim, dim)
        total += linear_flops(1, config.text_c_dim, dim) + GatedMLP.flops(1, dim, inner)
        total += linear_flops(words, config.text_dim, dim) + GatedMLP.flops(words, dim, inner)
        total += linear_flops(frames, 7 * config.latent_dim, dim) + GatedMLP.flops(frames, dim, inner, kernel=7)
        total += config.depth * Stream.flops(frames, dim, inner, kernel=3)
        total += (joint - 1) * Stream.flops(words, dim, inner, kernel=1) + Stream.flops(
            words, dim, inner, pre_only=True
        )
        total += joint * attention_flops(dim, frames + words, frames + words)
        total += config.fused_depth * attention_flops(dim, frames, frames)
        total += linear_flops(1, dim, 2 * dim) + linear_flops(frames, 7 * dim, config.latent_dim)
        return total + self.score.flops(frames, words)

    def row_bytes(self, frames: int, precision: str, device: torch.device) -> int:
        config, size = self.config, 2 if precision == "bf16" else 4
        length = frames + config.text_length
        streams = 6 * 4 * config.hidden_dim * length  # the streams, their norms and what is added to them, in float32
        # A gated MLP holds both halves, their product and its windows of three or, at the input, seven frames.
        mlp = (2 + 1 + 1 + 7) * config.mlp_dim * size * frames
        attention = 4 * 3 * config.hidden_dim * size * length
        if precision == "bf16" and device.type == "cpu" and length <= LONGEST:  # products keep the weights
            attention += 2 * config.num_heads * size * length**2
        return streams + max(mlp, attention)

"""FluxAudio: the flow-matching transformer over audio latents, after MeanAudio (arXiv 2508.06098)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.blocks import FusedBlock, JointBlock
from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.layers import GatedMLP, SequenceConv, TimeEmbedding, modulate
from plaudit.backbone.score import build_injection
from plaudit.types import TextFeatures


@dataclass(frozen=True)
class Conditions:
    """Text and score as the blocks take them: words [B, L, D], pooled [B, D], and the score's embedding e [B, D]."""

    words: Tensor
    pooled: Tensor
    e: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def repeated(self, times: int) -> Conditions:
        """The same rows `times` over, one whole set after the other."""
        return Conditions.joined([self] * times)

    def split(self, size: int) -> list[Conditions]:
        """Sets of `size` rows."""
        parts = (self.words.split(size), self.pooled.split(size), self.e.split(size))
        return [Conditions(*part) for part in zip(*parts, strict=True)]

    @staticmethod
    def joined(sets: Sequence[Conditions]) -> Conditions:
        """The rows of all sets."""
        return Conditions(
            torch.cat([part.words for part in sets]),
            torch.cat([part.pooled for part in sets]),
            torch.cat([part.e for part in sets]),
        )


class FinalLayer(nn.Module):
    """Modulated norm and a wide convolution back to latents: [B, N, D] -> [B, N, C]."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = SequenceConv(dim, latent_dim, kernel=7)

    def forward(self, audio: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=-1)
        return self.out(modulate(audio, shift, scale))


class FluxAudio(nn.Module):
    """Predicts the velocity of latents that flow from noise (t = 1) to music (t = 0), given text and perhaps a score.

    Buffers travel with the weights: `latent_mean`, `latent_std` [C] and `score_mean`, `score_std` [] of the training
    set, and the encoding of the empty string, `empty_tokens` [L, text_dim] and `empty_pooled` [text_c_dim].
    The weights are still to be filled: by `initialize` for training, or from a checkpoint.
    """

    latent_mean: Tensor
    latent_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    empty_tokens: Tensor
    empty_pooled: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
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
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.register_buffer("score_mean", torch.tensor(0.0))
        self.register_buffer("score_std", torch.tensor(1.0))
        self.register_buffer("empty_tokens", torch.zeros(config.text_length, config.text_dim))
        self.register_buffer("empty_pooled", torch.zeros(config.text_c_dim))

    def forward(self, latents: Tensor, text: TextFeatures, t: Tensor, score: Tensor | None = None) -> Tensor:
        """Velocity [B, N, C] at standardized `latents` [B, N, C] and times `t` [B] in [0, 1].

        score [B] is in the reward's own units; NaN marks a dropped score, None drops all. A score given to a model
        without an injection is a ModelError.
        """
        return self.velocity(latents, self.conditions(text, score), t)

    def conditions(self, text: TextFeatures, score: Tensor | None = None) -> Conditions:
        """What the network makes of the text and the score, which is the same at every time and for all latents."""
        # The embedder sees standardized scores (ours), so one set of frequencies fits every reward's scale.
        standardized = None if score is None else (score - self.score_mean) / self.score_std
        e = self.score.embed(standardized, len(text))  # [B, D]
        return Conditions(self.text_in(text.tokens).float(), self.pooled_in(text.pooled), e)

    def velocity(self, latents: Tensor, told: Conditions, t: Tensor) -> Tensor:
        """Velocity [B, N, C] under conditions of B at times `t` [B] or [1].

        latents [B, N, C], or [M, N, C] where B is a multiple of M: row i then goes with conditions i, M + i, 2 M + i
        and so on, and passes the input layers once for all of them.
        """
        # The streams and the condition are float32 under autocast too: what a block adds is small beside them.
        condition = (self.time(t) + told.pooled).float()
        condition = self.score.condition(condition, told.e)[:, None]  # [B, 1, D]
        audio = self.audio_in(latents).float()  # [M, N, D]
        if len(told) != len(audio):
            audio = audio.repeat(len(told) // len(audio), 1, 1)
        audio = self.score.audio_input(audio, told.e)  # [B, N, D]
        words, token = told.words, self.score.text_token(told.e)  # [B, L, D], [B, 1, D] or None
        for index, joint in enumerate(self.joint_blocks):
            audio = self.score.before_block(index, audio, told.e)
            audio, words, token = joint(audio, words, condition, token, self.score.token_gate(index))
        for index, fused in enumerate(self.fused_blocks, start=len(self.joint_blocks)):
            audio = self.score.before_block(index, audio, told.e)
            audio = fused(audio, condition)
        return self.final(audio, condition)

    @torch.no_grad()
    def set_statistics(
        self,
        latent_mean: Tensor,
        latent_std: Tensor,
        score_mean: float,
        score_std: float,
        empty: TextFeatures,
    ) -> None:
        """Fill the buffers: training-set statistics of latents [C] and scores, and the encoding of the empty string.

        empty: features of one prompt, tokens [1, L, text_dim] and pooled [1, text_c_dim].
        """
        self.latent_mean.copy_(latent_mean)
        self.latent_std.copy_(latent_std)
        self.score_mean.fill_(score_mean)
        self.score_std.fill_(score_std)
        self.empty_tokens.copy_(empty.tokens[0])
        self.empty_pooled.copy_(empty.pooled[0])

    def standardize(self, latents: Tensor) -> Tensor:
        """Codec latents [..., C] -> what the network sees, zero mean and unit variance per channel."""
        return (latents - self.latent_mean) / self.latent_std

    def unstandardize(self, latents: Tensor) -> Tensor:
        """The inverse of `standardize`."""
        return latents * self.latent_std + self.latent_mean

    def empty_text(self, batch: int) -> TextFeatures:
        """The encoding of the empty string for a batch of that many."""
        return TextFeatures(self.empty_tokens.expand(batch, -1, -1), self.empty_pooled.expand(batch, -1))

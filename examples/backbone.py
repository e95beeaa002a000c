"""A backbone: residual convolutions over the latents, modulated by time, pooled text and the score.

Name it in a recipe by its file, with its sizes; the models that are trained keep the name:

    backbone: {kind: examples/backbone.py:ConvNet, overrides: {hidden_dim: 64, layers: 6}}

An installed package can name it instead, as an entry point of the group `plaudit.backbones`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone import Backbone, BackboneConfig, Conditions, build_injection
from plaudit.backbone.layers import SequenceConv, TimeEmbedding
from plaudit.types import TextFeatures


@dataclass(frozen=True)
class ConvNetConfig(BackboneConfig):
    """Widths and the injection are those of every backbone; these are its own."""

    layers: int = 6
    kernel: int = 5


class ConvNet(Backbone):
    """Buffers, standardization, the score's embedding and initialization come from Backbone."""

    Config = ConvNetConfig

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__(config)
        dim = config.hidden_dim
        self.time, self.pooled_in = TimeEmbedding(dim), nn.Linear(config.text_c_dim, dim)
        self.audio_in, self.final = nn.Linear(config.latent_dim, dim), nn.Linear(dim, config.latent_dim)
        self.blocks = nn.ModuleList(SequenceConv(dim, dim, config.kernel) for _ in range(config.layers))
        self.score = build_injection(config)

    def conditions(self, text: TextFeatures, score: Tensor | None = None) -> Conditions:
        """Computed once for a clip."""
        return Conditions(text.tokens, self.pooled_in(text.pooled), self.embed_score(score, len(text)))

    def velocity(self, latents: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Computed at every solver step: [M, N, C] -> [B, N, C], where B is M or a multiple of it."""
        condition = self.score.condition(self.time(t) + conditions.pooled, conditions.e)[:, None]  # [B, 1, D]
        audio = self.audio_in(latents).repeat(len(conditions) // len(latents), 1, 1)  # [B, N, D]
        audio = self.score.audio_input(audio, conditions.e)
        for index, block in enumerate(self.blocks):
            audio = self.score.before_block(index, audio, conditions.e)
            audio = audio + block(F.silu(audio + condition))
        return self.final(audio)

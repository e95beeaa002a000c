"""MeanAudio (arXiv 2508.06098): FluxAudio with a second time, which predicts average velocities (MeanFlow, arXiv
2505.13447).

x_end = x_t - (t - end) u(x_t, t, end): one evaluation crosses any interval, from noise to music at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from plaudit.backbone.base import Conditions
from plaudit.backbone.config import MEANAUDIO, BackboneConfig, FluxAudioConfig, is_number
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.layers import TimeEmbedding, linear_flops
from plaudit.errors import ModelError
from plaudit.settings import shortened
from plaudit.types import TextFeatures


@dataclass(frozen=True)
class MeanAudioConfig(FluxAudioConfig):
    """FluxAudio's sizes. fixed_score: the conditioning score, in the reward's own units, that a distilled model always
    uses (ours); None for a model without one, or with a score of the caller's."""

    fixed_score: float | None = None
    kind: str = field(default=MEANAUDIO, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        score = self.fixed_score
        if score is None:
            return
        if not is_number(score):
            raise ModelError(f"backbone: fixed_score must be a number, not {shortened(repr(score))}")
        if self.injection == "none":
            raise ModelError(f"backbone: a fixed_score ({score:g}) needs an injection")


class MeanAudio(FluxAudio):
    """Predicts the average velocity between two times, t and an earlier `end`."""

    Config: ClassVar[type[BackboneConfig]] = MeanAudioConfig
    average_velocity: ClassVar[bool] = True
    small_init: ClassVar[str] = r"^(time|end_time)\."

    config: MeanAudioConfig

    def __init__(self, config: MeanAudioConfig) -> None:
        super().__init__(config)
        self.end_time = TimeEmbedding(config.hidden_dim)

    def forward(
        self, latents: Tensor, text: TextFeatures, t: Tensor, score: Tensor | None = None, end: Tensor | None = None
    ) -> Tensor:
        """Average velocity [B, N, C] from times `t` [B] to `end` [B] <= t, by default t: the velocity at t."""
        return self.velocity(latents, self.conditions(text, score), t, end)

    def velocity(self, latents: Tensor, conditions: Conditions, t: Tensor, end: Tensor | None = None) -> Tensor:
        """The same under conditions of B; see Backbone."""
        return self.transform(latents, conditions, self.time(t) + self.end_time(t if end is None else end))

    def embed_score(self, score: Tensor | None, batch: int) -> Tensor:
        fixed = self.config.fixed_score
        if fixed is None:
            return super().embed_score(score, batch)
        if score is not None:
            raise ModelError(f"this model was distilled at score {fixed:g} and takes no other; leave the score out")
        return super().embed_score(torch.full((batch,), fixed, device=self.score_mean.device), batch)

    def forward_flops(self, frames: int, text_length: int | None = None) -> int:
        """FluxAudio's, and those of the second time."""
        dim = self.config.hidden_dim
        return super().forward_flops(frames, text_length) + linear_flops(1, TimeEmbedding.features + dim, dim)

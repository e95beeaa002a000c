"""A FluxAudio small enough that a test of it takes milliseconds."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.backbone import FluxAudio, FluxAudioConfig, initialize
from plaudit.types import TextFeatures


def tiny_config(injection: str = "none") -> FluxAudioConfig:
    return FluxAudioConfig(
        latent_dim=5,
        text_dim=12,
        text_c_dim=10,
        hidden_dim=32,
        depth=3,
        fused_depth=1,
        num_heads=2,
        mlp_multiple=16,
        text_length=7,
        injection=injection,
        score_hidden=16,
    )


def tiny_model(injection: str = "none", seed: int = 0) -> FluxAudio:
    model = FluxAudio(tiny_config(injection))
    initialize(model, seed)
    return model


@torch.no_grad()
def wake(model: FluxAudio) -> FluxAudio:
    """Give what starts at zero, but for the score injection, other values, as training would."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if not name.startswith("score.") and not parameter.any():
            parameter.normal_(std=0.1, generator=generator)
    return model


def inputs(batch: int = 3, frames: int = 11, seed: int = 0) -> tuple[Tensor, TextFeatures, Tensor]:
    """latents [B, N, C], text features and t [B] for the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    text = TextFeatures(torch.randn(batch, 7, 12, generator=generator), torch.randn(batch, 10, generator=generator))
    return torch.randn(batch, frames, 5, generator=generator), text, torch.rand(batch, generator=generator)

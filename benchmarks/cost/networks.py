"""Networks to measure: that of a model, or one of a published size with random weights."""

from __future__ import annotations

import torch

from plaudit.backbone.base import initialize
from plaudit.backbone.config import PRESETS, RATES
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.loading import MODELS, load

SECONDS = 9.975
"""What the published models' latents span of a clip of ten seconds."""


def network(name: str, device: torch.device) -> tuple[FluxAudio, int]:
    """A backbone and the latent frames of its clips: of a preset's size with random weights, or of a model.

    No parameter is left at zero, so that every part is computed. ModelError for an unknown name.
    """
    if name in PRESETS and name not in MODELS:
        model = FluxAudio(PRESETS[name])
        initialize(model, 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02, generator=generator)
        rate, hop = RATES[name.rsplit("-", 1)[1]]
        return model.to(device).eval(), -int(-SECONDS * rate // hop)
    music = load(name, str(device))
    return music.backbone, music.frames

"""A small model around an example's network, trained a little and loaded from its folder like any other."""

from __future__ import annotations

from pathlib import Path

import torch

from plaudit import loading
from plaudit.backbone import Backbone
from plaudit.flow import flow_loss, interpolate, velocity
from plaudit.generate.model import ModelConfig, TextToMusic, save_model
from plaudit.generate.settings import SamplingSettings
from tests.backbone.tiny import inputs
from tests.generate.tiny import FoldingCodec, HashedText

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = Path(__file__).parents[1] / "generate" / "tiny.py"
SETTINGS = SamplingSettings(steps=3, score=1.0, precision="no")


def train(backbone: Backbone, steps: int = 30) -> list[float]:
    """The losses of flow matching on clips whose level is their score."""
    optimizer = torch.optim.Adam(backbone.parameters(), 1e-2)
    noise, text, t = inputs(8)
    score = torch.linspace(-2, 2, 8)
    clips = score[:, None, None].expand_as(noise)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = flow_loss(backbone(interpolate(clips, noise, t), text, t, score), velocity(clips, noise)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def saved_and_loaded(folder: Path, backbone: Backbone) -> TextToMusic:
    """The model, written to a folder and loaded from there."""
    config = ModelConfig(backbone.config, f"{TINY}:FoldingCodec", f"{TINY}:HashedText", 1.3, "Apache-2.0", {})
    save_model(folder, TextToMusic(backbone.eval(), FoldingCodec(), HashedText(), config))
    return loading.load(str(folder), "cpu")

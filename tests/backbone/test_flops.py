"""Counted operations against what PyTorch counts while the network runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from plaudit.backbone import FluxAudio
from plaudit.backbone.base import FORWARD_AND_BACKWARD
from plaudit.backbone.config import PRESETS
from plaudit.backbone.injections import INJECTIONS
from plaudit.types import TextFeatures
from tests.backbone.tiny import inputs, tiny_model


def counted(model: FluxAudio, frames: int, words: int = 7, backward: bool = False) -> int:
    """Operations a clip. PyTorch counts attention on the CPU only where it is done by ordinary products."""
    latents, text, t = inputs(batch=2, frames=frames)
    text = TextFeatures(text.tokens[:, :words], text.pooled)
    score = None if model.config.injection == "none" else torch.zeros(2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        velocity = model(latents, text, t, score)
        if backward:
            velocity.sum().backward()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("injection", INJECTIONS.builtin)
@pytest.mark.parametrize("frames", [3, 11])
def test_the_count_is_that_of_pytorch(injection: str, frames: int) -> None:
    assert tiny_model(injection).forward_flops(frames) == counted(tiny_model(injection), frames)


def test_another_text_length_is_counted() -> None:
    assert tiny_model().forward_flops(11, 4) == counted(tiny_model(), 11, words=4)


def test_training_costs_three_forward_passes() -> None:
    model = tiny_model()
    # Not exactly: gradients of the inputs are not computed.
    assert counted(model, 40, backward=True) == pytest.approx(FORWARD_AND_BACKWARD * model.forward_flops(40), rel=0.05)


def test_the_published_size() -> None:
    config = replace(PRESETS["fluxaudio-s-44k"], injection="global_adaln")
    parameters_a_frame = 2 * 120e6 * 430  # most weights meet every frame once, the text's and the modulations' do not
    with torch.device("meta"):
        model = FluxAudio(config)
    assert 0.5 * parameters_a_frame < model.forward_flops(430) < parameters_a_frame

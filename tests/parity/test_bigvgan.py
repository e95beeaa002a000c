"""The vocoder against what NVIDIA's BigVGAN v2 computes."""

from __future__ import annotations

import math

import pytest
import torch

from plaudit.codec.mel_codec import bigvgan_config, bigvgan_from_published
from tests.parity.folder import assert_equal, fixtures_of, load, tensors

LARGE = 100e6
"""Parameters from which on rounding alone may move the outputs by more than 1e-4."""


@pytest.mark.parametrize("name", fixtures_of("bigvgan"))
def test_the_vocoder_computes_what_the_published_one_does(name: str) -> None:
    fixture = load(name)
    vocoder = bigvgan_from_published(tensors(fixture.state_dict()), bigvgan_config(fixture.config))
    folded = sum(math.prod(shape) for key, shape in fixture.shapes.items() if key.endswith("original0"))
    assert sum(p.numel() for p in vocoder.parameters()) + folded == fixture.config["parameters"]
    with torch.inference_mode():
        wave = vocoder(fixture.inputs["mel"])
    tolerance = 2e-3 if fixture.config["parameters"] > LARGE else 1e-4
    assert_equal(wave, fixture.outputs["wav"][:, 0], tolerance)

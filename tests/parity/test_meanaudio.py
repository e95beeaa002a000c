"""MeanAudio against what the published network computes."""

from __future__ import annotations

import pytest
import torch

from plaudit.backbone.meanaudio import MeanAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.generate.sampling import sample_latents
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.types import TextFeatures
from tests.parity.folder import assert_equal, fixtures_of, load, tensors

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", fixtures_of("meanaudio"))
def test_the_network_computes_what_the_published_one_does(name: str) -> None:
    fixture = load(name)
    state, given, expected = tensors(fixture.state_dict()), fixture.inputs, fixture.outputs
    model = from_published(state)
    assert isinstance(model, MeanAudio)
    assert sum(p.numel() for p in model.parameters()) == fixture.config["trainable_parameters"]

    text = TextFeatures(given["text"], given["text_pooled"])
    with torch.inference_mode():
        velocity = model(given["latent"], text, given["t"], end=given["r"])
    assert_equal(velocity, expected["velocity"], TOLERANCE)

    settings = SamplingSettings(steps=2, precision="no", guidance=Guidance(weight=1.0))
    latents = sample_latents(model, text, model.empty_text(len(given["t"])), None, given["latent"], settings)
    assert_equal(model.standardize(latents), expected["two_steps"], TOLERANCE)

    exported = to_published(model)
    assert all(torch.equal(exported[key], value) for key, value in state.items())

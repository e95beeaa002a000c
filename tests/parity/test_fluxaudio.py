"""FluxAudio against what the published network computes."""

from __future__ import annotations

import pytest
import torch

from plaudit.backbone import FluxAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.generate.sampling import sample_latents
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.types import TextFeatures
from tests.parity.folder import assert_equal, fixtures_of, load, tensors

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", fixtures_of("fluxaudio"))
def test_the_network_computes_what_the_published_one_does(name: str) -> None:
    fixture = load(name)
    state, given, expected = tensors(fixture.state_dict()), fixture.inputs, fixture.outputs
    model: FluxAudio = from_published(state)
    assert sum(p.numel() for p in model.parameters()) == fixture.config["trainable_parameters"]

    text, empty = TextFeatures(given["text"], given["text_pooled"]), model.empty_text(len(given["t"]))
    with torch.inference_mode():
        velocity = model(given["latent"], text, given["t"])
        velocity_empty = model(given["latent"], empty, given["t"])
    assert_equal(velocity, expected["velocity"], TOLERANCE)
    assert_equal(velocity_empty, expected["velocity_empty"], TOLERANCE)

    settings = SamplingSettings(steps=5, precision="no", guidance=Guidance(weight=4.5))
    latents = sample_latents(model, text, empty, None, given["latent"], settings)
    assert_equal(latents, expected["euler5_unnormalized"], TOLERANCE)
    assert_equal(model.standardize(latents), expected["euler5_guidance4p5"], TOLERANCE)

    exported = to_published(model)
    assert all(torch.equal(exported[key], value) for key, value in state.items())

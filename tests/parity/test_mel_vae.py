"""The mel VAE against what MMAudio's computes."""

from __future__ import annotations

import pytest
import torch

from plaudit.codec.mel_codec import mel_vae_from_published
from plaudit.codec.mel_vae import MelVAEConfig
from tests.parity.folder import assert_equal, fixtures_of, load, tensors

LARGE = 200e6
"""Parameters from which on rounding alone moves the outputs by more than 1e-4."""


@pytest.mark.parametrize("name", fixtures_of("mel_vae"))
def test_the_network_computes_what_the_published_one_does(name: str) -> None:
    fixture = load(name)
    tolerance = 2e-3 if fixture.config["parameters"] > LARGE else 1e-4
    vae = mel_vae_from_published(tensors(fixture.state_dict()))
    sizes = fixture.config
    assert vae.config == MelVAEConfig(sizes["data_dim"], sizes["embed_dim"], sizes["hidden_dim"])
    gains = 2  # folded into the last convolutions
    assert sum(p.numel() for p in vae.parameters()) + gains == sizes["parameters"]
    with torch.inference_mode():
        posterior = vae.encode(fixture.inputs["mel"])
        decoded = vae.decode(fixture.inputs["z"].transpose(1, 2))
    assert_equal(posterior.mean.transpose(1, 2), fixture.outputs["mean"], tolerance)
    assert_equal(2 * posterior.std.log().transpose(1, 2), fixture.outputs["logvar"], tolerance)
    assert_equal(decoded, fixture.outputs["decoded"], tolerance)

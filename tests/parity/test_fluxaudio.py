"""FluxAudio against what the published network computes."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from plaudit.backbone import FluxAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.flow import Guidance
from plaudit.generate.sampler import sample_latents
from plaudit.generate.settings import SamplingSettings
from plaudit.types import TextFeatures

FOLDER = Path(os.environ.get("PLAUDIT_PARITY_DIR", Path(__file__).parents[2] / "../shared/parity"))
TOLERANCE = 1e-4


def fixture_names() -> list[str]:
    paths = sorted(FOLDER.glob("*.json"))
    return [path.stem for path in paths if json.loads(path.read_text()).get("kind") == "fluxaudio"]


def reader() -> ModuleType:
    """The module that reads the fixtures, which lies beside them."""
    specification = importlib.util.spec_from_file_location("parity_fixtures", FOLDER / "fixtures.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def parameters() -> list[object]:
    names = fixture_names()
    if not names:
        reason = f"no FluxAudio fixtures in {FOLDER}; set PLAUDIT_PARITY_DIR"
        return [pytest.param("", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(name, marks=() if name.endswith("tiny") else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", parameters())
def test_the_network_computes_what_the_published_one_does(name: str) -> None:
    fixture = reader().load(name, FOLDER)
    state = {key: torch.from_numpy(value) for key, value in fixture.state_dict().items()}
    given = {key: torch.from_numpy(value) for key, value in fixture.inputs.items()}
    expected = {key: torch.from_numpy(value) for key, value in fixture.outputs.items()}
    model: FluxAudio = from_published(state)
    assert sum(p.numel() for p in model.parameters()) == fixture.config["trainable_parameters"]

    text, empty = TextFeatures(given["text"], given["text_pooled"]), model.empty_text(len(given["t"]))
    with torch.inference_mode():
        velocity = model(given["latent"], text, given["t"])
        velocity_empty = model(given["latent"], empty, given["t"])
    torch.testing.assert_close(velocity, expected["velocity"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(velocity_empty, expected["velocity_empty"], atol=TOLERANCE, rtol=0)

    settings = SamplingSettings(steps=5, guidance=Guidance(weight=4.5))
    latents = sample_latents(model, text, empty, None, given["latent"], settings)
    torch.testing.assert_close(latents, expected["euler5_unnormalized"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(model.standardize(latents), expected["euler5_guidance4p5"], atol=TOLERANCE, rtol=0)

    exported = to_published(model)
    assert all(torch.equal(exported[key], value) for key, value in state.items())

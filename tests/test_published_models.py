"""Every importer of published weights takes its own model's file, and names what is wrong with any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plaudit.backbone.published import from_published as fluxaudio_from_published
from plaudit.codec.mel_codec import bigvgan_from_published, mel_vae_from_published
from plaudit.encoders.laion_clap import clap_model_from_published
from plaudit.errors import ModelError
from plaudit.published import read_released
from plaudit.reward.tunejury import TuneJuryHead, head_from_published
from tests.backbone.test_published import published as fluxaudio_state
from tests.codec.test_bigvgan import CONFIG
from tests.codec.test_bigvgan import published as bigvgan_state
from tests.codec.test_mel_vae import published as mel_vae_state
from tests.encoders.test_laion_clap import laion_names, small_model
from tests.reward.test_head import released_form

Importer = Callable[[Mapping[str, Any]], object]

IMPORTERS: dict[str, Importer] = {
    "fluxaudio": fluxaudio_from_published,
    "mel_vae": mel_vae_from_published,
    "bigvgan": lambda checkpoint: bigvgan_from_published(checkpoint, CONFIG),
    "clap": clap_model_from_published,
    "tunejury": head_from_published,
}


@lru_cache(maxsize=1)
def states() -> dict[str, dict[str, Tensor]]:
    """A small state dict of each model, as it is released."""
    return {
        "fluxaudio": fluxaudio_state(),
        "mel_vae": mel_vae_state(),
        "bigvgan": {name: value for name, value in bigvgan_state().items() if not name.endswith(".filter")},
        "clap": laion_names(small_model()),
        "tunejury": released_form(TuneJuryHead(6, (5, 3)), "net."),
    }


def refusal(importer: Importer, checkpoint: Mapping[str, Any]) -> str:
    with pytest.raises(ModelError) as error:
        importer(checkpoint)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", IMPORTERS)
def test_a_file_is_imported_whole_and_refused_truncated(model: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in states()[model].items()}, "epoch": 1}, path)
    IMPORTERS[model](read_released(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ModelError, match=r"model\.pt cannot be read as plain weights .*truncated"):
        IMPORTERS[model](read_released(path))


@pytest.mark.parametrize("other", IMPORTERS)
@pytest.mark.parametrize("model", IMPORTERS)
def test_the_file_of_another_model_is_refused(model: str, other: str) -> None:
    if model != other:
        message = refusal(IMPORTERS[model], states()[other])
        assert "missing" in message
        assert next(iter(states()[other])) in message


@pytest.mark.parametrize("model", IMPORTERS)
def test_a_missing_tensor_is_named(model: str) -> None:
    for name in required(model):
        assert f"missing {name}" in refusal(IMPORTERS[model], without(states()[model], name)), name


@pytest.mark.parametrize("model", IMPORTERS)
@pytest.mark.parametrize("change", ["scalar", "empty", "longer", "last axis more", "first axis more"])
def test_a_misshapen_tensor_is_refused(model: str, change: str) -> None:
    if (model, change) == ("fluxaudio", "first axis more"):
        pytest.skip("leading axes of size one do not matter there")
    for name in required(model):
        value = states()[model][name]
        changed = {
            "scalar": torch.zeros(()),
            "empty": torch.zeros(0),
            "longer": torch.zeros([size + 1 for size in value.shape]),
            "last axis more": value[..., None],
            "first axis more": value[None],
        }[change]
        if changed.shape != value.shape:
            refusal(IMPORTERS[model], states()[model] | {name: changed})


def required(model: str) -> list[str]:
    """The names without which a file of this model is not whole."""
    unused = ("logit_scale", "tscam", "branch.head", "transform.", "melW", "attn_mask", "position_index")
    return [name for name in states()[model] if not any(part in name for part in unused)]


def without(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}

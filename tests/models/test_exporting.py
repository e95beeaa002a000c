"""What is exported can be read again, and is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from plaudit import hub
from plaudit.assets import save_module
from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.cli import models
from plaudit.errors import ModelError
from plaudit.generate.model import ModelConfig
from plaudit.models.exporting import export_folder, export_released
from plaudit.models.importing import files_in, import_release
from plaudit.models.registry import find
from tests.backbone.test_published import published as fluxaudio_state
from tests.backbone.tiny import tiny_model, wake


def imported(folder: Path, weights: Path) -> Path:
    release = find("fluxaudio-s")
    import_release(release, files_in(weights, release), folder)
    return folder


def test_import_export_import_gives_the_same_tensors(tmp_path: Path) -> None:
    torch.save(fluxaudio_state(), tmp_path / "released.pth")
    first = imported(tmp_path / "first", tmp_path / "released.pth")
    export_released(first, tmp_path / "again.safetensors")
    second = imported(tmp_path / "second", tmp_path / "again.safetensors")
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    theirs = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(theirs[name], value) for name, value in fluxaudio_state().items() if name in theirs)
    assert "audio_input_proj.0.weight" in theirs


def test_a_model_of_ours_with_a_score_comes_back(tmp_path: Path) -> None:
    sizes = BackboneConfig(5, 6, 4, hidden_dim=16, depth=2, fused_depth=1, num_heads=2, text_length=3, injection="film")
    model = wake(FluxAudio(sizes))
    config = ModelConfig(model.config, "embedded", "embedded", 5.0, "Apache-2.0", {"stage": "sft"})
    save_module(tmp_path / "ours", model, config.to_dict())
    export_released(tmp_path / "ours", tmp_path / "released.safetensors")
    again = from_published(load_file(tmp_path / "released.safetensors"), "film")
    assert to_published(again).keys() == to_published(model).keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_folder_for_the_hub_is_a_model_folder_with_a_card(tmp_path: Path) -> None:
    torch.save(fluxaudio_state(), tmp_path / "released.pth")
    folder = imported(tmp_path / "model", tmp_path / "released.pth")
    done = CliRunner().invoke(models.app, ["export", str(folder), "-o", str(tmp_path / "hub")])
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in (tmp_path / "hub").iterdir())
    assert written == ["README.md", "config.json", "model.safetensors"]
    assert hub.read_model_config(tmp_path / "hub") == hub.read_model_config(folder)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: plaudit\n") and "codec `codec-16k`" in card
    assert "files.weights.pth.from: AndreasXi/MeanAudio/fluxaudio_s_full.pth@main" in card


def test_nothing_is_written_over_and_no_other_format(tmp_path: Path) -> None:
    torch.save(fluxaudio_state(), tmp_path / "released.pth")
    folder = imported(tmp_path / "model", tmp_path / "released.pth")
    with pytest.raises(ModelError, match="is not empty; give a new folder"):
        export_folder(folder, tmp_path)
    ours = tiny_model()
    config = ModelConfig(ours.config, "embedded", "embedded", 5.0, "Apache-2.0", {})
    save_module(tmp_path / "ours", ours, config.to_dict())
    with pytest.raises(ModelError, match="has sizes that no released FluxAudio has"):
        export_released(tmp_path / "ours", tmp_path / "weights.safetensors")
    assert not (tmp_path / "weights.safetensors").exists()
    with pytest.raises(ModelError, match=r"written as \.safetensors only"):
        export_released(folder, tmp_path / "weights.pth")

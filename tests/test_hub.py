"""Frozen models by name, by folder, and by the name of a folder among the user's models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from plaudit import loading
from plaudit.cli.main import app
from plaudit.codec.mel_codec import save_mel_codec
from plaudit.errors import ModelError
from plaudit.models.releases import RELEASES
from tests.codec.test_mel_codec import tiny_release


def test_a_codec_is_found_by_path_and_among_the_users_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    for name in (str(tmp_path / "tiny"), "tiny"):
        codec = loading.build(loading.CODECS, name)
        assert (codec.name, codec.hop, codec.latent_dim) == ("tiny", 12, 3)
    assert loading.build(loading.CODECS, "synthetic").name == "synthetic"


def test_what_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    with pytest.raises(ModelError, match="no model 'nowhere': give a model folder or one of synthetic"):
        loading.build(loading.CODECS, "nowhere")
    with pytest.raises(ModelError, match="of kind 'mel-codec'; wanted here is"):
        loading.build(loading.TEXT_ENCODERS, "tiny")


LISTENER = """
import torch

class Loud:
    name, sample_rate, dim = "loud", 8000, 1
    def audio(self, wave):
        return wave.square().mean(1, keepdim=True)

def broken():
    raise RuntimeError("no weights")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings encoders, as pip leaves it."""
    (tmp_path / "loud.py").write_text(LISTENER)
    information = tmp_path / "loud-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text("[plaudit.encoders]\nloud = loud:Loud\nbroken = loud:broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_installed_package_brings_an_encoder_by_name(installed: None) -> None:
    listener = loading.build(loading.AUDIO_EMBEDDERS, "loud")
    heard: Tensor = listener.audio(torch.from_numpy(np.full((2, 8000), 0.5, np.float32)))
    assert heard.tolist() == [[0.25], [0.25]]
    assert loading.encoder_digest(loading.AUDIO_EMBEDDERS, "loud").startswith("loud:Loud of loud 1.5 ")
    with pytest.raises(ModelError, match=r"installed encoder 'loud' \(loud:Loud\) has no text"):
        loading.build(loading.CLAPS, "loud")
    with pytest.raises(ModelError, match=r"installed encoder 'broken' .* fails: RuntimeError"):
        loading.build(loading.CLAPS, "broken")
    with pytest.raises(ModelError, match=r"no model 'nowhere': .* broken, loud, statistics"):
        loading.build(loading.AUDIO_EMBEDDERS, "nowhere")


def test_models_that_are_not_here_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    run = tmp_path / "run"
    for stage in ("sft", "crpo"):
        (run / stage).mkdir(parents=True)
        (run / stage / "model.safetensors").touch()
    (run / "recipe.yaml").touch()
    for name, said in {
        "fluxaudio-s": "'fluxaudio-s' is not here yet; fetch it with: plaudit models fetch fluxaudio-s$",
        "tunejury": "plaudit models fetch tunejury$",
        "fluxaudio": "no model 'fluxaudio': did you mean 'fluxaudio-s'.*plaudit models fetch NAME",
        "meanaudio-s": "no model is made",
        str(run): f"is a run, not a model; name one of its models: {run}/crpo, {run}/sft$",
        str(tmp_path): "has no config.json",
    }.items():
        with pytest.raises(ModelError, match=said):
            loading.load_reward(name) if name == "tunejury" else loading.load(name)


def test_the_list_of_released_models_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", "models")
    shown = CliRunner().invoke(app, ["models", "list"])
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0 and max(map(len, lines)) <= 80
    for name, release in RELEASES.items():
        place = next(n for n, line in enumerate(lines) if line.split()[0] == name)
        assert " ".join(" ".join(lines[place + 1 :]).split()).startswith(release.purpose)
    assert lines[-1].startswith("plaudit models fetch NAME")

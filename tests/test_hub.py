"""Frozen models by name, by folder, and by the name of a folder among the user's models."""

from __future__ import annotations

from pathlib import Path

import pytest
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
        codec = loading.CODECS.load(name)
        assert (codec.name, codec.hop, codec.latent_dim) == ("tiny", 12, 3)
    assert loading.CODECS.load("synthetic").name == "synthetic"


def test_what_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    with pytest.raises(ModelError, match="no codec 'nowhere': give one of synthetic"):
        loading.CODECS.load("nowhere")
    with pytest.raises(ModelError, match="of kind 'mel-codec', which is no text encoder"):
        loading.TEXT_ENCODERS.load("tiny")


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
        "meanaudio-s": "files, not a model",
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

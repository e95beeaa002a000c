"""Models by name, by folder, and by the name of a folder among the user's models; the memory that loading takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.loading import make_folder
from plaudit import loading
from plaudit.cli.console import result_console
from plaudit.cli.main import app
from plaudit.codec.mel_codec import save_mel_codec
from plaudit.errors import ModelError
from plaudit.models.releases import RELEASES
from tests.codec.test_mel_codec import tiny_release


def test_a_codec_loads_from_a_path_and_from_the_users_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    for name in (str(tmp_path / "tiny"), "tiny"):
        codec = loading.CODECS.load(name)
        assert (codec.name, codec.hop, codec.latent_dim) == ("tiny", 12, 3)
    assert loading.CODECS.load("synthetic").name == "synthetic"


def test_a_missing_model_and_one_of_another_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    with pytest.raises(ModelError, match="no codec 'nowhere': give one of synthetic"):
        loading.CODECS.load("nowhere")
    with pytest.raises(ModelError, match="of kind 'mel-codec', which is no text encoder"):
        loading.TEXT_ENCODERS.load("tiny")


def test_the_error_for_a_missing_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        "tunejury-scores": "files, not a model",
        str(run): f"is a run, not a model; name one of its models: {run}/crpo, {run}/sft$",
        str(tmp_path): "has no config.json",
    }.items():
        with pytest.raises(ModelError, match=said):
            loading.load_reward(name) if name == "tunejury" else loading.load(name)


def test_the_list_of_released_models_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", "models")
    monkeypatch.setattr(result_console, "_width", 80)
    shown = CliRunner().invoke(app, ["models", "list"])
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0 and max(map(len, lines)) <= 80
    for name, release in RELEASES.items():
        place = next(n for n, line in enumerate(lines) if line.split()[0] == name)
        assert " ".join(" ".join(lines[place + 1 :]).split()).startswith(release.purpose)
    assert lines[-1].startswith("plaudit models fetch NAME")


BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "loading.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_a_loaded_network_takes_no_more_than_1_3_times_its_file(tmp_path: Path) -> None:
    size = make_folder(tmp_path, "fluxaudio-s-16k")
    assert size > 400e6
    taken = {way: json.loads(run(str(BENCHMARK), "--once", str(tmp_path), way)) for way in ("mapped", "overwritten")}
    assert taken["mapped"]["bytes"] < 1.3 * size < taken["overwritten"]["bytes"]


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout

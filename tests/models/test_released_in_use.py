"""Every command runs with imported models: small ones here, in the file formats of the real releases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plaudit import loading
from plaudit.backbone.config import FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.meanaudio import MeanAudio, MeanAudioConfig
from plaudit.backbone.published import to_published
from plaudit.cli.main import app
from plaudit.models.releases import find
from plaudit.reward.tunejury import TuneJuryHead
from plaudit.storage import save_tensors
from tests.models.test_exporting import RELEASED, clap_files, codec_files, imported, released_t5
from tests.reward.test_head import released_form

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a user of the released models has, small."""
    files, home = tmp_path_factory.mktemp("released"), tmp_path_factory.mktemp("models")
    for identifier, write in (
        ("codec-16k", codec_files),
        ("clap-music-speech", clap_files),
        ("clap-music", clap_files),
        ("text-t5-clap", released_t5),
        ("mert-330m", RELEASED["mert-330m"]),
    ):
        write(files / identifier)
        release = "codec-44k" if identifier == "codec-16k" else identifier
        imported(release, files / identifier, home / identifier)
    torch.manual_seed(0)
    sizes = FluxAudioConfig(3, 16, 512, hidden_dim=16, depth=2, fused_depth=1, num_heads=2)
    torch.save({"state_dict": to_published(FluxAudio(sizes))}, files / "fluxaudio_s_full.pth")
    imported("fluxaudio-s", files / "fluxaudio_s_full.pth", home / "fluxaudio-s")
    average = MeanAudioConfig(3, 16, 512, hidden_dim=16, depth=2, fused_depth=1, num_heads=2)
    torch.save({"it": 1, "weights": to_published(MeanAudio(average))}, files / "meanaudio_s_full.pth")
    imported("meanaudio-s-full", files / "meanaudio_s_full.pth", home / "meanaudio-s-full")
    torch.save(released_form(TuneJuryHead(512 + 16 + 512, (8, 4)), "net."), files / "tunejury.pt")
    imported("tunejury", files / "tunejury.pt", home / "tunejury")
    return home


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(home))


def run(*words: str, expected: int = 0) -> str:
    done = RUNNER.invoke(app, list(words))
    assert done.exit_code == expected, done.output
    return done.stdout


@pytest.mark.slow
def test_clips_are_generated_scored_and_evaluated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("generate", "slow sad piano", "--model", "fluxaudio-s", "-n", "2", "-o", str(out), "--device", "cpu")
    clips = sorted(out.glob("*.wav"))
    assert len(clips) == 2
    rows = json.loads(run("score", str(out), "--reward", "tunejury", "--prompt", "slow sad piano", "--json"))
    assert len({row["reward"] for row in rows}) == 2
    evaluators = ("--reward", "tunejury", "--clap", "clap-music", "--detector", "clap", "--embedding", "mert-330m")
    words = ("evaluate", str(out), "--reference", str(out), *evaluators, "--embedding", "clap-music", "--json")
    summary = json.loads(run(*words))
    assert summary["clips"] == {"total": 2, "scored": 2} and summary["settings"]["detector_errors"] is None
    frechet = {metric["embedding"]: metric["value"] for metric in summary["metrics"] if metric["metric"] == "frechet"}
    assert frechet == {"mert-330m": pytest.approx(0, abs=1e-9), "clap-music": pytest.approx(0, abs=1e-9)}


@pytest.mark.slow
def test_a_clip_is_generated_in_one_evaluation(tmp_path: Path) -> None:
    run("generate", "slow sad piano", "--model", "meanaudio-s-full", "-o", str(tmp_path), "--device", "cpu")
    sidecar = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert sidecar["sampling"]["steps"] == 1 and sidecar["sampling"]["guidance"]["weight"] == 1


def test_an_imported_model_is_verified_by_its_name() -> None:
    said = json.loads(run("models", "verify", "fluxaudio-s", "--json", expected=1))
    checks = {check["name"]: check["passed"] for check in said}
    assert checks.keys() == {"reconstruction", "latents", "empty tokens", "empty pooled"}
    assert not checks["empty tokens"] and not checks["empty pooled"]  # random weights know no text encoder


@pytest.mark.slow
def test_a_whole_recipe_runs_with_imported_encoders(tmp_path: Path) -> None:
    names = {"text_encoder": "text-t5-clap", "clap": "clap-music", "audio_embedder": "mert-330m"}
    changes = [word for key, name in names.items() for word in ("--set", f"models.{key}={name}")]
    run("run", "smoke", "-o", str(tmp_path / "run"), *changes)
    results = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert [row["key"] for row in results["stages"]][-1] == "finished"
    assert loading.read_model_config(tmp_path / "run" / "crpo").text_encoder == "text-t5-clap"
    assert "not stated" in loading.read_model_config(tmp_path / "run" / "crpo").licence


def test_other_weights_under_the_same_name_are_noticed(home: Path) -> None:
    before = [registry.identity(name) for registry, name in WATCHED], loading.REWARDS.identity("tunejury")
    weights = home / "clap-music" / "model.safetensors"
    whole = weights.read_bytes()
    state = loading.load_tensors(weights)
    save_tensors(weights, {name: 1.5 * value for name, value in state.items() if value.is_floating_point()})
    after = [registry.identity(name) for registry, name in WATCHED], loading.REWARDS.identity("tunejury")
    weights.write_bytes(whole)
    assert [a == b for a, b in zip(before[0], after[0], strict=True)] == [False, True, True]
    assert before[1] != after[1]
    assert loading.CLAPS.identity("nowhere") == "none" and loading.CLAPS.identity("synthetic") != "none"


WATCHED = ((loading.CLAPS, "clap-music"), (loading.TEXT_ENCODERS, "text-t5-clap"), (loading.CODECS, "codec-16k"))


def test_a_text_encoder_changes_with_the_clap_that_it_names(home: Path) -> None:
    before = loading.TEXT_ENCODERS.identity("text-t5-clap")
    config = home / "clap-music-speech" / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace("CC0-1.0", "changed"))
    after = loading.TEXT_ENCODERS.identity("text-t5-clap")
    config.write_text(whole)
    assert before != after and replace(find("tunejury"), id="x").needs == ("clap-music", "mert-330m")

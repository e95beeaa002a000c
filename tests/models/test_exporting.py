"""Exports round-trip, model cards describe the model, and folders are pushed to the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from plaudit import loading
from plaudit.backbone.config import FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.cli import models
from plaudit.codec.mel import MEL_16K
from plaudit.codec.mel_codec import ReleasedCodec, save_mel_codec
from plaudit.errors import ModelError
from plaudit.generate.model import ModelConfig
from plaudit.models.exporting import export_folder, export_released, licence_chain, model_card
from plaudit.models.importing import Choices, files_in, import_release
from plaudit.models.releases import find
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.published import read_released
from plaudit.reward.tunejury import TuneJuryHead, head_from_published, read_head, save_head
from plaudit.storage import save_module, write_json
from tests.backbone.test_published import meanaudio
from tests.backbone.test_published import published as fluxaudio_state
from tests.backbone.tiny import tiny_model, wake
from tests.codec.test_bigvgan import CONFIG, normed
from tests.codec.test_bigvgan import published as vocoder_state
from tests.encoders.test_laion_clap import laion_names, small_model
from tests.encoders.test_mert import released as released_mert
from tests.encoders.test_t5_clap import released_t5
from tests.encoders.words_tokenizer import byte_tokenizer
from tests.models.test_importing import released_codec
from tests.reward.test_head import released_form


def codec_files(folder: Path) -> None:
    """As released: the vocoder with weight norm."""
    released_codec(folder)
    state = normed(vocoder_state(), "weight_g", "weight_v")
    torch.save({"generator": state}, folder / "bigvgan_generator.pt")


def clap_files(folder: Path) -> None:
    byte_tokenizer().save_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    torch.save(laion_names(small_model()), folder / "weights.pt")


def fluxaudio_files(folder: Path) -> None:
    folder.mkdir()
    torch.save(fluxaudio_state(), folder / "weights.pth")


def tunejury_files(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    torch.save({"state_dict": released_form(TuneJuryHead(2048, (4, 3)), "net.")}, folder / "tunejury.pt")


def meanaudio_files(folder: Path) -> None:
    folder.mkdir()
    torch.save({"it": 1, "weights": to_published(meanaudio())}, folder / "weights.pth")


RELEASED: dict[str, Callable[[Path], Any]] = {
    "fluxaudio-s": fluxaudio_files,
    "meanaudio-s-full": meanaudio_files,
    "codec-44k": codec_files,
    "clap-music": clap_files,
    "mert-330m": released_mert,
    "text-t5-clap": released_t5,
    "tunejury": tunejury_files,
}


def imported(identifier: str, files: Path, folder: Path) -> Path:
    release = find(identifier)
    import_release(release, files_in(files, release), folder, Choices(verified=False))
    return folder


@pytest.mark.parametrize("identifier", RELEASED)
def test_import_export_import_gives_the_same_tensors(identifier: str, tmp_path: Path) -> None:
    RELEASED[identifier](tmp_path / "released")
    first = imported(identifier, tmp_path / "released", tmp_path / "first")
    export_released(first, tmp_path / "again")
    second = imported(identifier, tmp_path / "again", tmp_path / "second")
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (first, second))
    assert ours.pop("provenance")["stage"] == theirs.pop("provenance")["stage"] == "imported" and ours == theirs


@pytest.mark.parametrize(
    ("identifier", "name"),
    [("fluxaudio-s", "weights.pth"), ("meanaudio-s-full", "weights.pth"), ("codec-44k", "vocoder.pt"),
     ("clap-music", "weights.pt"), ("mert-330m", "pytorch_model.bin"), ("tunejury", "weights.pt")],
)  # fmt: skip
def test_exported_files_hold_the_released_names_and_values(identifier: str, name: str, tmp_path: Path) -> None:
    RELEASED[identifier](tmp_path / "released")
    export_released(imported(identifier, tmp_path / "released", tmp_path / "model"), tmp_path / "again")
    release = find(identifier)
    theirs = files_in(tmp_path / "released", release)[name]
    released, again = read_released(theirs), read_released(tmp_path / "again" / name)
    for wrapper in ("generator", "state_dict", "weights"):
        released, again = released.get(wrapper, released), again.get(wrapper, again)
    assert set(again) <= set(released) and len(again) > 3
    assert all(torch.equal(released[key], value) for key, value in again.items())
    left_out = {key for key in set(released) - set(again) if "num_batches" not in key}
    assert not left_out or identifier in (
        "fluxaudio-s",
        "meanaudio-s-full",
    )  # entries that every network builds for itself


def test_the_16k_codec_has_the_files_of_its_release(tmp_path: Path) -> None:
    RELEASED["codec-44k"](tmp_path / "released")
    states = [torch.load(tmp_path / "released" / name) for name in ("v1-44.pth", "bigvgan_generator.pt")]
    mel = replace(MEL_16K, bands=5, hop=6, n_fft=16)
    tiny = ReleasedCodec("tiny", mel, CONFIG, states[0], states[1]["generator"])
    save_mel_codec(tmp_path / "model", tiny, {"licence": "MIT"})
    export_released(tmp_path / "model", tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["vae-16k.pth", "vocoder-16k.pt"]


def test_a_model_of_ours_with_a_score_comes_back(tmp_path: Path) -> None:
    sizes = FluxAudioConfig(
        5, 6, 4, hidden_dim=16, depth=2, fused_depth=1, num_heads=2, text_length=3, injection="film"
    )
    model = wake(FluxAudio(sizes))
    config = ModelConfig(model.config, "synthetic", "synthetic", 5.0, "Apache-2.0", {"stage": "sft"})
    save_module(tmp_path / "ours", model, config.to_dict())
    export_released(tmp_path / "ours", tmp_path / "released")
    again = from_published(read_released(tmp_path / "released" / "weights.pth"), "film")
    assert to_published(again).keys() == to_published(model).keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("settings", [{"score_null": -3.0}, {"score_frequencies": "time", "score_null": "scalar"}])
def test_frequencies_and_null_of_the_score_come_back(settings: dict[str, Any], tmp_path: Path) -> None:
    sizes = FluxAudioConfig(
        5, 6, 4, hidden_dim=16, depth=2, fused_depth=1, num_heads=2, text_length=3, injection="input_add", **settings
    )
    model = wake(FluxAudio(sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("score."):
                parameter.normal_()
    config = ModelConfig(sizes, "synthetic", "synthetic", 5.0, "Apache-2.0", {"stage": "sft"})
    save_module(tmp_path / "ours", model, config.to_dict())
    export_released(tmp_path / "ours", tmp_path / "released")
    imported_with = Choices(injection="input_add", verified=False)
    release = find("fluxaudio-s")
    import_release(release, files_in(tmp_path / "released", release), tmp_path / "again", imported_with)
    read = loading.read_model_config(tmp_path / "again").backbone
    assert read == sizes
    again = loading.load_backbone(tmp_path / "again", read)
    for score in (None, torch.tensor([0.4, torch.nan])):
        assert torch.equal(again.embed_score(score, 2), model.embed_score(score, 2))


def test_a_reward_of_ours_scores_the_same_under_the_released_names(tmp_path: Path) -> None:
    torch.manual_seed(1)
    head = TuneJuryHead(5, (7, 6)).eval()
    for name, buffer in head.named_buffers():
        if name.split(".")[-1] in ("input_mean", "offset", "running_mean"):
            buffer.normal_()
        elif buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    save_head(tmp_path / "ours", head, ("clap_audio",), {"clap": "synthetic", "audio": "statistics"}, {})
    export_released(tmp_path / "ours", tmp_path / "released")
    again = head_from_published(read_released(tmp_path / "released" / "weights.pt"))
    features = torch.randn(9, 5)
    torch.testing.assert_close(again(features), head(features), atol=1e-5, rtol=1e-4)
    assert read_head(tmp_path / "ours")[1] == ("clap_audio",)
    with pytest.raises(ModelError, match=r"the reward has the blocks .*clap_match.*; released heads have clap_audio"):
        export_released(SHIPPED_WEIGHTS / "reward", tmp_path / "other")


def test_a_folder_for_the_hub_is_a_model_folder_with_a_card(tmp_path: Path) -> None:
    fluxaudio_files(tmp_path / "released")
    folder = imported("fluxaudio-s", tmp_path / "released", tmp_path / "model")
    done = CliRunner().invoke(models.app, ["export", str(folder), "-o", str(tmp_path / "hub")])
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in (tmp_path / "hub").iterdir())
    assert written == ["README.md", "config.json", "model.safetensors"]
    assert loading.read_model_config(tmp_path / "hub") == loading.read_model_config(folder)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: plaudit\npipeline_tag: text-to-audio\nlicense: other\n")
    assert "codec `codec-16k`" in card and "| codec | codec-16k | unknown: it is not on this machine |" in card
    assert f"- files.weights.pth.from: {tmp_path / 'released' / 'weights.pth'}" in card


def test_hub_folders_include_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    clap_files(tmp_path / "released")
    export_folder(imported("clap-music", tmp_path / "released", tmp_path / "clap"), tmp_path / "hub")
    again = loading.CLAPS.load(str(tmp_path / "hub"))
    assert torch.equal(again.text(["piano"]), loading.CLAPS.load(str(tmp_path / "clap")).text(["piano"]))


def run_of_one_stage(folder: Path) -> Path:
    """A run folder with the shipped model as its SFT stage, and a report; the stage's folder."""
    shutil.copytree(SHIPPED_WEIGHTS / "model", folder / "sft")
    config = json.loads((folder / "sft" / "config.json").read_text())
    config["provenance"] |= {"stage": "sft", "recipe": "mine"}
    write_json(folder / "sft" / "config.json", config)
    (folder / "recipe.yaml").write_text(
        "name: mine\ncorpus: {size: 40}\nvotes: {pairs: 1234}\n"
        "stages: [{kind: sft, train: {steps: 77, learning_rate: 0.001}}]\n"
    )
    value = {"mean": 0.5, "low": 0.25, "high": 0.75}
    rows = [
        {"key": key, "title": key, "clips": 8, "means": {"reward": value, "clap": value, "frechet": value}}
        for key in ("baseline", "sft", "crpo")
    ]
    write_json(folder / "report" / "report.json", {"stages": rows})
    return folder / "sft"


def test_the_card_of_a_stage_describes_its_run_and_its_figures(tmp_path: Path) -> None:
    card = model_card(run_of_one_stage(tmp_path / "run"))
    assert "# mine, after sft" in card and "license: apache-2.0" in card
    assert "40 clips of 10 s of Plaudit's synthetic musical world" in card
    assert "1,234 votes of simulated listeners" in card and "1. sft: " in card and "train.steps 77" in card
    assert "| stage | Reward | CLAP score | Fréchet distance |" in card
    assert "| sft | 0.500 [0.250, 0.750] |" in card and "| crpo |" not in card
    assert "| codec | synthetic | Apache-2.0 |" in card
    other = tmp_path / "other.json"
    write_json(other, {"stages": [{"key": "baseline", "title": "Else", "clips": 3}]})
    with pytest.raises(ModelError, match="is no report with figures of stage 'sft'"):
        model_card(tmp_path / "run" / "sft", other)


def test_the_card_states_the_licences_of_the_recordings(tmp_path: Path) -> None:
    stage = run_of_one_stage(tmp_path / "run")
    recipe = stage.parent / "recipe.yaml"
    shards = "{kind: shards, folder: jamendo}\nreward: {kind: table}"
    recipe.write_text(recipe.read_text().replace("{size: 40}", shards))
    assert "The rights to its audio are not known to this card." in model_card(stage)
    licences = {"CC-BY-3.0": 1200, "CC-BY-NC-SA-3.0": 3000}
    write_json(stage.parent / "shards" / "facts.json", {"clips": 4300, "licences": licences})
    card = model_card(stage)
    table = "| CC-BY-NC-SA-3.0 | 3,000 |\n| CC-BY-3.0 | 1,200 |\n| not stated | 100 |"
    assert f"| licence of the recording | clips |\n| --- | --- |\n{table}\n" in card
    assert "3,000 clips are of recordings whose licence forbids commercial use." in card


def test_a_part_that_forbids_commerce_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    fluxaudio_files(tmp_path / "released")
    codec_files(tmp_path / "parts")
    imported("codec-44k", tmp_path / "parts", tmp_path / "codec-16k")
    folder = imported("fluxaudio-s", tmp_path / "released", tmp_path / "fluxaudio-s")
    assert licence_chain(folder)[:2] == [
        ("this model", "fluxaudio-s", "MIT"),
        ("codec", "codec-16k", "mel VAE: CC-BY-NC-4.0; BigVGAN: MIT"),
    ]
    assert "the whole must not be used commercially" in model_card(folder)


def test_nothing_is_written_over_and_sizes_without_a_release_are_refused(tmp_path: Path) -> None:
    fluxaudio_files(tmp_path / "released")
    folder = imported("fluxaudio-s", tmp_path / "released", tmp_path / "model")
    for export in (export_folder, export_released):
        with pytest.raises(ModelError, match="is not empty; give a new folder"):
            export(folder, tmp_path)
    ours = tiny_model()
    config = ModelConfig(ours.config, "synthetic", "synthetic", 5.0, "Apache-2.0", {})
    save_module(tmp_path / "ours", ours, config.to_dict())
    with pytest.raises(ModelError, match="has sizes that no released FluxAudio has"):
        export_released(tmp_path / "ours", tmp_path / "weights")
    with pytest.raises(ModelError, match="of kind 'unknown', which has no released form"):
        export_released(SHIPPED_WEIGHTS / "codec", tmp_path / "codec")

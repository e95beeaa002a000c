"""Importing released files: complete folders, usable by name, with provenance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plaudit import loading
from plaudit.backbone.injections import INJECTIONS
from plaudit.backbone.meanaudio import MeanAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.cli import models
from plaudit.cli.models import import_model
from plaudit.errors import ModelError
from plaudit.generate.sampling import sample_latents
from plaudit.models.fetch import fetch_folder
from plaudit.models.importing import Choices, files_in, import_release
from plaudit.models.inspecting import inspect_folder
from plaudit.models.releases import RELEASES, Release, find
from plaudit.recipe import load_recipe
from plaudit.reward.ablation import INPUT_ABLATIONS
from plaudit.reward.tunejury import TuneJuryHead, read_head
from tests.backbone.test_published import NAMES, embedder, meanaudio
from tests.backbone.test_published import published as fluxaudio_state
from tests.codec.test_bigvgan import published as vocoder_state
from tests.codec.test_mel_codec import CONFIG, tiny_codec
from tests.codec.test_mel_vae import published as vae_state
from tests.encoders.test_laion_clap import laion_names, small_model
from tests.encoders.test_mert import released as released_mert
from tests.encoders.test_t5_clap import released_t5
from tests.encoders.words_tokenizer import byte_tokenizer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def without_digests(identifier: str) -> Release:
    """The release, any weights of which are taken for its own: tests' weights are random and small."""
    release = find(identifier)
    return replace(release, files=tuple(replace(file, digest="") for file in release.files))


def released_codec(folder: Path) -> Path:
    folder.mkdir(parents=True)
    state = vae_state(bands=5)
    state["data_std"] = state["data_std"].abs() + 0.5
    torch.save(state, folder / "v1-44.pth")
    torch.save({"generator": vocoder_state()}, folder / "bigvgan_generator.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_the_codec_is_built_from_released_files_and_loads_by_name(tmp_path: Path, home: Path) -> None:
    release = without_digests("codec-44k")
    files = files_in(released_codec(tmp_path / "released"), release)
    import_release(release, files, home / release.id)
    codec = loading.CODECS.load("codec-44k")
    latents = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decode(latents), tiny_codec().decode(latents))
    said = inspect_folder(home / "codec-44k")
    assert said["kind"] == "mel-codec" and "MIT" in said["licence"]
    states = (vae_state(bands=5), vocoder_state())
    assert said["parameters"] == sum(value.numel() for state in states for value in state.values())
    source = said["provenance"]["files"]["vocoder.pt"]
    assert source["from"].startswith("nvidia/bigvgan_v2_44khz_128band_512x/bigvgan_generator.pt@95a9d1d")
    assert source["digest"] == f"sha256:{hashlib.sha256(files['vocoder.pt'].read_bytes()).hexdigest()}"


def test_clap_then_text_encoder_then_mert(tmp_path: Path, home: Path) -> None:
    released = tmp_path / "released"
    text, mert = find("text-t5-clap"), without_digests("mert-330m")
    t5 = released_t5(released / "t5")
    import_release(text, files_in(t5, text), home / text.id)
    with pytest.raises(ModelError, match="needs the CLAP 'clap-music-speech'"):
        loading.TEXT_ENCODERS.load(text.id)
    clap = without_digests("clap-music-speech")
    byte_tokenizer().save_pretrained(str(released / "clap"))
    (released / "clap" / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    torch.save(laion_names(small_model()), released / "clap" / "weights.pt")
    import_release(clap, files_in(released / "clap", clap), home / clap.id)
    features = loading.TEXT_ENCODERS.load(text.id).encode(["piano", "drums"])
    assert features.tokens.shape == (2, 77, 16) and features.pooled.shape == (2, 512)
    released_mert(released / "mert")
    import_release(mert, files_in(released / "mert", mert), home / mert.id)
    assert loading.AUDIO_ENCODERS.load(mert.id).dim == 16
    assert inspect_folder(home / mert.id)["licence"] == "CC-BY-NC-4.0"


def test_a_backbone_becomes_a_text_to_music_folder(tmp_path: Path, home: Path) -> None:
    release = find("fluxaudio-s")
    torch.save(fluxaudio_state(), tmp_path / "any-name.pth")
    import_release(release, files_in(tmp_path / "any-name.pth", release), home / release.id)
    folder = loading.model_folder("fluxaudio-s", loading.MODELS)
    config = loading.read_model_config(folder)
    assert (config.codec, config.text_encoder) == ("codec-16k", "text-t5-clap")
    expected = from_published(fluxaudio_state()).state_dict()
    output = loading.load_backbone(folder, config.backbone).state_dict()
    assert output.keys() == expected.keys() and all(torch.equal(output[name], expected[name]) for name in expected)


def test_a_name_map_gives_unknown_weights_their_place(tmp_path: Path, home: Path) -> None:
    release = without_digests("ttm-humanpref")
    state = fluxaudio_state()
    state["score_from_elsewhere.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pt")
    files = files_in(tmp_path, release)
    with pytest.raises(ModelError, match=r"unknown score_from_elsewhere\.bias \(3,\)"):
        import_release(release, files, home / release.id)
    with pytest.raises(ModelError, match=r"unknown ours \(3,\)"):
        import_release(release, files, home / release.id, Choices(names={"score_from_elsewhere.bias": "ours"}))
    with pytest.raises(ModelError, match="no injection 'sideways': give one of audio_prepend, cross_attention"):
        INJECTIONS.load("sideways")


@pytest.mark.parametrize("identifier", ["meanaudio-s-ac", "meanaudio-s-full", "meanaudio-l-full"])
def test_meanaudio_is_sampled_in_one_evaluation_without_guidance(identifier: str, tmp_path: Path, home: Path) -> None:
    network, release = meanaudio(), without_digests(identifier)
    torch.save({"it": 5, "weights": to_published(network)}, tmp_path / "file.pth")
    import_release(release, files_in(tmp_path / "file.pth", release), home / identifier)
    config = loading.read_model_config(loading.model_folder(identifier, loading.MODELS))
    assert (config.backbone.kind, config.codec, config.text_encoder) == ("meanaudio", "codec-16k", "text-t5-clap")
    assert config.sampling.steps == 1 and config.sampling.guidance.weight == 1
    loaded = loading.load_backbone(home / identifier, config.backbone)
    assert isinstance(loaded, MeanAudio)
    noise, text = torch.randn(2, 6, 5), network.empty_text(2)
    sampling = config.sampling.changed(precision="no")
    sampled = sample_latents(loaded, text, text, None, noise, sampling)
    with torch.inference_mode():
        one_step = noise - network(noise, text, torch.ones(2), end=torch.zeros(2))
    torch.testing.assert_close(loaded.standardize(sampled), one_step, atol=1e-5, rtol=1e-5)


def test_a_network_of_another_kind_than_the_release_is_refused(tmp_path: Path, home: Path) -> None:
    torch.save(to_published(meanaudio()), tmp_path / "mean.pth")
    torch.save(fluxaudio_state(), tmp_path / "flux.pth")
    for file, identifier, others in (
        ("mean.pth", "fluxaudio-s", "meanaudio-s-ac, meanaudio-s-full, meanaudio-l-full$"),
        ("flux.pth", "meanaudio-s-full", "ttm-humanpref, .*fluxaudio-s$"),
    ):
        release = without_digests(identifier)
        with pytest.raises(ModelError, match=f"and {identifier} is of kind .*; import it as one of {others}"):
            import_release(release, files_in(tmp_path / file, release), home / identifier)
        assert not (home / identifier).exists()


def test_the_papers_files_are_releases_and_there_is_no_fluxaudio_l() -> None:
    for number, seed in ((1, 42), (2, 55)):
        release = find(f"ttm-humanpref-sub{number}")
        assert release.files[0].url.endswith(f"/v1.0-icme2026/sub{number}_seed{seed}_fluxaudio_s.pt")
        assert f"seed {seed}" in release.purpose and release.non_commercial
        assert (release.needs, release.injection) == (find("ttm-humanpref").needs, find("ttm-humanpref").injection)
    files = {name: find(f"meanaudio-{name}").files[0].path for name in ("s-ac", "s-full", "l-full")}
    assert files == {name: f"meanaudio_{name.replace('-', '_')}.pth" for name in files}
    with pytest.raises(ModelError, match="no released model 'fluxaudio-l'"):
        find("fluxaudio-l")


def test_a_name_map_is_read_by_the_command(tmp_path: Path, home: Path) -> None:
    torch.save({"it": 9, "weights": fluxaudio_state() | embedder(null=(1, 16))}, tmp_path / "weights.pt")
    names = NAMES | {"reward.null": "score.embedder.null", "score_frequencies": "time"}
    (tmp_path / "names.json").write_text(json.dumps(names))
    words = ["import", "ttm-humanpref", "--from", str(tmp_path / "weights.pt"), "--names", str(tmp_path / "names.json")]
    refused = CliRunner().invoke(models.app, words)
    assert isinstance(refused.exception, ModelError) and "import it with --unverified" in str(refused.exception)
    assert CliRunner().invoke(models.app, [*words, "--unverified"]).exit_code == 0
    imported = loading.read_model_config(home / "ttm-humanpref")
    config, sampling, paper = imported.backbone, imported.sampling, load_recipe("paper").sampling
    assert sampling == paper  # what the authors deployed
    assert (config.score_features, config.score_hidden, config.score_frequencies) == (20, 9, "time")
    network = loading.load_backbone(home / "ttm-humanpref", config)
    torch.testing.assert_close(network.embed_score(None, 1), embedder(null=(1, 16))["reward.null"])
    torch.save(fluxaudio_state(), tmp_path / "plain.pt")
    plain = ["import", "ttm-humanpref", "--from", str(tmp_path / "plain.pt"), "--unverified", "--injection", "none"]
    assert CliRunner().invoke(models.app, [*plain, "-o", str(tmp_path / "plain")]).exit_code == 0
    assert loading.read_model_config(tmp_path / "plain").sampling == paper.model_copy(update={"score": None})
    (tmp_path / "names.json").write_text("[1]")
    assert "a name map must be" in str(CliRunner().invoke(models.app, [*words, "--unverified"]).exception)


def test_a_failed_import_leaves_the_old_folder_only(tmp_path: Path, home: Path) -> None:
    release = without_digests("codec-44k")
    files = files_in(released_codec(tmp_path / "released"), release)
    import_release(release, files, home / release.id)
    before = (home / release.id / "model.safetensors").read_bytes()
    files["vocoder.pt"].write_bytes(files["vocoder.pt"].read_bytes()[:1000])
    with pytest.raises(ModelError, match="truncated"):
        import_release(release, files, home / release.id)
    assert (home / release.id / "model.safetensors").read_bytes() == before
    assert [path.name for path in home.iterdir()] == [release.id]


@pytest.mark.parametrize("mine", ["notes.txt", "config.json", "weights/model.safetensors"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, home: Path, mine: str) -> None:
    release = without_digests("codec-44k")
    files = files_in(released_codec(tmp_path / "released"), release)
    place = tmp_path / "out"
    (place / mine).parent.mkdir(parents=True)
    (place / mine).write_text('{"model_type": "mine"}')
    for make in (lambda: import_release(release, files, place), lambda: fetch_folder("me/model", place)):
        with pytest.raises(ModelError, match="holds files and is no model folder of plaudit's; choose another folder"):
            make()
    assert [str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()] == [mine]


def test_a_file_that_is_not_the_released_one_is_refused(tmp_path: Path, home: Path) -> None:
    release = find("codec-44k")
    with pytest.raises(ModelError, match=r"v1-44\.pth is not the file that codec-44k was released as"):
        import_release(release, files_in(released_codec(tmp_path / "released"), release), home / release.id)
    (tmp_path / "released" / "bigvgan_generator.pt").unlink()
    with pytest.raises(ModelError, match=r"has no vocoder\.pt or bigvgan_generator\.pt, which codec-44k needs"):
        files_in(tmp_path / "released", release)


def head_file(path: Path, width: int, prefix: str = "net.") -> Path:
    head = TuneJuryHead(width, (6, 4), generator=torch.Generator().manual_seed(width))
    weights = {k.replace("layers.", prefix, 1): v for k, v in head.state_dict().items() if k.startswith("layers.")}
    torch.save(weights, path)
    return path


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("A1_clap_audio_only", ["mert", "text"]),
        ("A2_mert_only", ["clap_audio", "text"]),
        ("A3_text_only", ["clap_audio", "mert"]),
        ("A4_clap_audio_mert", ["text"]),
        ("A5_clap_audio_text", ["mert"]),
        ("A6_mert_text", ["clap_audio"]),
        ("A7_full", []),
    ],
)
def test_heads_with_other_inputs_are_imported_by_their_json_or_by_option(
    name: str, excluded: list[str], tmp_path: Path, home: Path
) -> None:
    widths = {"clap_audio": 512, "mert": 1024, "text": 512}
    width = sum(size for block, size in widths.items() if block not in excluded)
    file, blocks = head_file(tmp_path / f"{name}.pt", width), INPUT_ABLATIONS[name[:2]]
    release = find("tunejury")
    import_release(release, files_in(file, release), tmp_path / "by-option", Choices(blocks=blocks))
    if width != 2048:
        with pytest.raises(ModelError, match=f"--blocks {','.join(blocks)}"):
            import_release(release, files_in(file, release), tmp_path / "none")
    file.with_suffix(".json").write_text(json.dumps({"input_dim": width, "exclude": excluded}))
    import_release(release, files_in(file, release), tmp_path / "by-json")
    for folder in (tmp_path / "by-option", tmp_path / "by-json"):
        head, read = read_head(folder)
        assert read == blocks and head.input_dim == width
    assert inspect_folder(tmp_path / "by-json")["licence"] == "CC-BY-NC-4.0"
    if width != 2048:
        with pytest.raises(ModelError, match="is not tunejury; give its folder with -o"):
            import_model("tunejury", file)
    file.with_suffix(".json").write_text('{"exclude": ["drums"]}')
    with pytest.raises(ModelError, match="'exclude' must list some of clap_audio, mert, text"):
        import_release(release, files_in(file, release), tmp_path / "wrong")


def test_both_rewards_and_the_heads_that_leave_a_source_out_are_released() -> None:
    challenge, primary = find("tunejury-challenge"), find("tunejury")
    assert challenge.files[0].url.endswith("/v1.0-icme2026/tunejury_reward.pt") and "22,000 pairs" in challenge.purpose
    assert primary.files[0].path == "tunejury.pt" and "17,554 pairs" in primary.purpose
    assert challenge.blocks == primary.blocks and challenge.needs == primary.needs
    left_out = {name: find(f"tunejury-leave-{name}").files[0].path for name in ("ma", "mp", "aime", "se", "se-ma")}
    assert left_out["ma"] == "tunejury_leave_MA.pt" and left_out["se-ma"] == "tunejury_leave_SE_MA.pt"


def test_a_head_over_another_encoder_takes_the_users(tmp_path: Path, home: Path) -> None:
    release = find("tunejury-muq-leave-ma")
    files = files_in(head_file(tmp_path / "muq.pt", 1024, "score."), release)
    with pytest.raises(ModelError, match=r"scores with MuQ-MuLan, which is not built in; name yours with .* --clap"):
        import_release(release, files, tmp_path / "none")
    import_release(release, files, tmp_path / "muq", Choices(clap="encoders.py:muq"))
    config = json.loads((tmp_path / "muq" / "config.json").read_text())
    assert config["encoders"]["clap"] == "encoders.py:muq" and config["blocks"] == ["clap_audio", "clap_text"]


def test_the_registry_is_sound() -> None:
    for name, release in RELEASES.items():
        assert release.id == name and release.purpose and release.licence and release.source
        assert all(needed in RELEASES for needed in release.needs)
        assert len({file.name for file in release.files}) == len(release.files)
        assert all(bool(file.url) != bool(file.repo and file.path) for file in release.files)
    assert RELEASES["mert-330m"].gated and RELEASES["mert-330m"].non_commercial
    assert RELEASES["ttm-humanpref"].non_commercial and not RELEASES["text-t5-clap"].non_commercial

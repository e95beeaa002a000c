"""Checks that a model's parts fit together: matching ones pass, and every wrong part fails its check."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from plaudit import loading
from plaudit.cli import models
from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.mel import MelSettings
from plaudit.codec.mel_codec import MelCodec
from plaudit.codec.mel_vae import MelVAE, MelVAEConfig
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic
from plaudit.models.inspecting import fit_checks, known_clips, likeness, require_fit
from plaudit.synthetic.codec import SyntheticCodec
from plaudit.types import TextFeatures


@pytest.fixture(scope="module")
def music() -> TextToMusic:
    """The synthetic world's parts, with the encoding of "" in the backbone that training would put there."""
    loaded, own = loading.load("synthetic", "cpu"), loading.load("synthetic", "cpu").backbone
    empty = loaded.text_encoder.encode([""])
    loaded.backbone.set_statistics(own.latent_mean, own.latent_std, own.score_mean, own.score_std, empty)
    return loaded


def failed(music: TextToMusic) -> set[str]:
    return {check.name for check in fit_checks(music) if not check.passed}


def test_matching_parts_fit(music: TextToMusic) -> None:
    assert {check.name: round(check.value, 3) for check in fit_checks(music) if not check.passed} == {}


def test_an_untrained_codec_is_reported(music: TextToMusic) -> None:
    torch.manual_seed(0)
    assert "reconstruction" in failed(replace(music, codec=SyntheticCodec().eval()))


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_mel_codec_is_reported(seed: int) -> None:
    torch.manual_seed(seed)
    sizes = BigVGANConfig(40, 32, (8, 8, 4), (16, 16, 8), (3,), ((1, 3),), final_bias=False, final_tanh=False)
    mel, vae = MelSettings(16000, 1024, 256, 40, "natural"), MelVAE(MelVAEConfig(40, 16, 16))
    codec = MelCodec("untrained", mel, vae, BigVGAN(sizes)).eval()
    clips = known_clips(codec)
    with torch.inference_mode():
        assert abs(likeness(codec.decode(codec.encode(clips).mean), clips, codec.sample_rate)) < 0.3


def test_no_stage_trains_on_an_untrained_codec(music: TextToMusic) -> None:
    require_fit(music)
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"do not fit: the codec does not reconstruct .* \(reconstruction"):
        require_fit(replace(music, codec=SyntheticCodec().eval()))


def test_a_codec_of_another_latent_scale_is_reported(music: TextToMusic) -> None:
    class Louder(SyntheticCodec):
        """Gives back what it is given, from latents ten times as large."""

        def encode(self, wave: Tensor):  # type: ignore[no-untyped-def]
            posterior = super().encode(wave)
            return replace(posterior, mean=10 * posterior.mean)

        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents / 10)

    louder = Louder().eval()
    assert isinstance(music.codec, nn.Module)
    louder.load_state_dict(music.codec.state_dict())
    assert failed(replace(music, codec=louder)) == {"latents"}


def test_another_text_encoder_is_reported(music: TextToMusic) -> None:
    class Another:
        name, length = "another", music.text_encoder.length
        token_dim, pooled_dim = music.text_encoder.token_dim, music.text_encoder.pooled_dim

        def encode(self, prompts: list[str]) -> TextFeatures:
            generator = torch.Generator().manual_seed(0)
            tokens = torch.randn(len(prompts), self.length, self.token_dim, generator=generator)
            return TextFeatures(tokens, music.text_encoder.encode(prompts).pooled)

    assert failed(replace(music, text_encoder=Another())) == {"empty tokens"}


def test_another_pooled_text_is_reported(music: TextToMusic) -> None:
    stale = deepcopy(music.backbone)
    stale.empty_pooled.copy_(stale.empty_pooled.roll(1))
    assert failed(replace(music, backbone=stale)) == {"empty pooled"}


def test_the_command_reports_mismatched_parts(monkeypatch: pytest.MonkeyPatch, music: TextToMusic) -> None:
    loaded = music
    monkeypatch.setattr(loading, "load", lambda name, device: loaded)
    done = CliRunner().invoke(models.app, ["verify", "synthetic", "--json"])
    assert done.exit_code == 0 and all(check["passed"] for check in json.loads(done.stdout))
    loaded = replace(music, codec=SyntheticCodec().eval())
    done = CliRunner().invoke(models.app, ["verify", "synthetic", "--json"])
    by_name = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.exit_code == 1 and not by_name["reconstruction"]["passed"]
    assert "untrained" in by_name["reconstruction"]["otherwise"] and by_name["empty tokens"]["passed"]


def test_likeness_is_one_of_the_same_and_none_of_noise(music: TextToMusic) -> None:
    clips = known_clips(music.codec)
    noise = 0.1 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    assert likeness(clips, clips, music.codec.sample_rate) == pytest.approx(1, abs=1e-5)
    assert likeness(0.5 * clips, clips, music.codec.sample_rate) > 0.95
    assert abs(likeness(noise, clips, music.codec.sample_rate)) < 0.1

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.codec.mel import MelSettings, log_mel
from plaudit.codec.mel_codec import (
    MelCodec,
    ReleasedCodec,
    bigvgan_config,
    load_mel_codec,
    mel_settings,
    published_config,
    released_codec,
    save_mel_codec,
)
from plaudit.errors import AudioError, ModelError
from tests.codec.test_bigvgan import PUBLISHED
from tests.codec.test_bigvgan import published as vocoder_state
from tests.codec.test_mel_vae import published as vae_state

SPECTROGRAM = {"sampling_rate": 1200, "n_fft": 16, "hop_size": 6, "win_size": 16, "fmin": 0, "fmax": None}
CONFIG: dict[str, Any] = PUBLISHED | SPECTROGRAM


def tiny_release() -> ReleasedCodec:
    state = vae_state(bands=5)
    state["data_std"] = state["data_std"].abs() + 0.5
    return released_codec("tiny", state, {"generator": vocoder_state()}, CONFIG)


def tiny_codec() -> MelCodec:
    return tiny_release().build()


def test_the_parts_are_joined_as_the_contract_says() -> None:
    codec = tiny_codec()
    assert (codec.sample_rate, codec.hop, codec.latent_dim) == (1200, 12, 3)
    wave = 0.3 * torch.randn(2, 60, generator=torch.Generator().manual_seed(0))
    posterior = codec.encode(wave)
    assert posterior.mean.shape == posterior.std.shape == (2, 5, 3) and bool((posterior.std > 0).all())
    expected = codec.vae.encode(log_mel(wave, MelSettings(1200, 16, 6, 5, "natural")))
    assert torch.equal(posterior.mean, expected.mean)
    made = codec.decode(posterior.mean)
    assert made.shape == wave.shape and made.abs().max() <= 1
    assert torch.equal(made, codec.vocoder(codec.vae.decode(posterior.mean)))


def test_a_saved_codec_comes_back_as_it_was(tmp_path: Path) -> None:
    codec = tiny_codec()
    save_mel_codec(tmp_path, tiny_release(), {"licence": "MIT", "provenance": {"from": "a test"}})
    again = load_mel_codec(tmp_path)
    assert again.name == "tiny" and again.mel == codec.mel
    assert all(torch.equal(value, codec.state_dict()[name]) for name, value in again.state_dict().items())
    latents = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.decode(latents), codec.decode(latents))
    assert json.loads((tmp_path / "config.json").read_text())["licence"] == "MIT"


def test_a_configuration_is_written_as_it_is_read() -> None:
    mel, vocoder = mel_settings(CONFIG), bigvgan_config(CONFIG)
    written = published_config(mel, vocoder)
    assert mel_settings(written) == mel and bigvgan_config(written) == vocoder


@pytest.mark.parametrize("shape", [(1, 61), (60,), (1, 0), (1, 1, 60)])
def test_other_waveforms_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="multiple of 12 samples"):
        tiny_codec().encode(torch.zeros(shape))


def test_a_waveform_too_short_to_mirror_is_refused() -> None:
    codec = tiny_codec()
    codec.mel = MelSettings(1200, 64, 6, 5, "natural")
    with pytest.raises(AudioError, match="at least 30"):
        codec.encode(torch.zeros(1, 24))


def test_parts_of_different_spectrograms_are_refused() -> None:
    with pytest.raises(ModelError, match="VAE 6 bands, the vocoder 5 bands"):
        released_codec("wrong", vae_state(), vocoder_state(), CONFIG).build()
    with pytest.raises(ModelError, match="at 7 samples"):
        released_codec("wrong", vae_state(5), vocoder_state(), CONFIG | {"hop_size": 7}).build()
    with pytest.raises(ModelError, match="not supported"):
        mel_settings(CONFIG | {"fmax": 200})
    with pytest.raises(ModelError, match="has no 'n_fft'"):
        mel_settings(PUBLISHED | {"sampling_rate": 1200})


def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    save_mel_codec(tmp_path, tiny_release(), {})
    config = json.loads((tmp_path / "config.json").read_text())
    for damaged in ({}, config | {"mel": {"bands": 5}}, config | {"vocoder": config["vocoder"] | {"bands": 4}}, [1]):
        (tmp_path / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(ModelError) as error:
            load_mel_codec(tmp_path)
        assert "\n" not in str(error.value)

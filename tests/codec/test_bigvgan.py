from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from plaudit.codec.bigvgan import TAPS, BigVGAN, BigVGANConfig, downsample, half_band_filter, upsample
from plaudit.codec.mel_codec import bigvgan_config, bigvgan_from_published
from plaudit.errors import ModelError

PUBLISHED = {
    "resblock": "1",
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 5,
    "upsample_initial_channel": 8,
    "upsample_rates": [3, 2],
    "upsample_kernel_sizes": [7, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "use_bias_at_final": False,
    "use_tanh_at_final": False,
}
CONFIG = BigVGANConfig(5, 8, (3, 2), (7, 4), (3, 5), ((1, 3), (1, 2)), final_bias=False, final_tanh=False)


def published() -> dict[str, Tensor]:
    """Random weights under the published names, weight norm already folded, for CONFIG."""
    shapes: dict[str, tuple[int, ...]] = {"conv_pre.weight": (8, 5, 7), "conv_pre.bias": (8,)}
    shapes |= {"ups.0.0.weight": (8, 4, 7), "ups.0.0.bias": (4,), "ups.1.0.weight": (4, 2, 4), "ups.1.0.bias": (2,)}
    for index, (width, kernel) in enumerate([(4, 3), (4, 5), (2, 3), (2, 5)]):
        for convs in ("convs1", "convs2"):
            for layer in range(2):
                stem = f"resblocks.{index}.{convs}.{layer}."
                shapes |= {stem + "weight": (width, width, kernel), stem + "bias": (width,)}
        for activation in range(4):
            stem = f"resblocks.{index}.activations.{activation}."
            shapes |= {stem + "act.alpha": (width,), stem + "act.beta": (width,)}
            shapes |= {stem + "upsample.filter": (1, 1, 12), stem + "downsample.lowpass.filter": (1, 1, 12)}
    shapes |= {"activation_post.act.alpha": (2,), "activation_post.act.beta": (2,), "conv_post.weight": (1, 2, 7)}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def normed(state: dict[str, Tensor], magnitude: str, direction: str) -> dict[str, Tensor]:
    """The same weights as weight norm keeps them."""
    made = {name: value for name, value in state.items() if not name.endswith("weight")}
    for name in state.keys() - made.keys():
        stem, weight = name.removesuffix("weight"), state[name]
        made[stem + magnitude] = weight.flatten(1).norm(dim=1)[:, None, None]
        made[stem + direction] = 3 * weight
    return made


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "generator", "state_dict"])
@pytest.mark.parametrize(
    "names",
    [None, ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")],
)
def test_every_released_wrapping_gives_the_same_vocoder(
    prefix: str, wrapper: str | None, names: tuple[str, str] | None
) -> None:
    plain = published()
    mel = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    expected = bigvgan_from_published(plain, CONFIG)(mel)
    state = {prefix + name: value for name, value in (normed(plain, *names) if names else plain).items()}
    vocoder = bigvgan_from_published({wrapper: state, "steps": 5} if wrapper else state, bigvgan_config(PUBLISHED))
    torch.testing.assert_close(vocoder(mel), expected, atol=1e-6, rtol=1e-5)


def test_missing_unknown_and_misshapen_tensors_are_all_named() -> None:
    state = normed(published(), "weight_g", "weight_v")
    del state["ups.1.0.weight_g"], state["resblocks.3.activations.2.act.beta"]
    state |= {"conv_post.bias": torch.zeros(1), "ups.0.0.bias": torch.zeros(9)}
    with pytest.raises(ModelError) as error:
        bigvgan_from_published(state, CONFIG)
    message = str(error.value)
    assert "missing ups.1.0.weight (4, 2, 4)" in message and "unknown ups.1.0.weight_v (4, 2, 4)" in message
    assert "missing resblocks.3.activations.2.act.beta (2,)" in message
    assert "unknown conv_post.bias (1,)" in message
    assert "ups.0.0.bias is (9,), not (4,)" in message
    assert "\n" not in message


def test_a_configuration_of_another_network_is_refused() -> None:
    assert bigvgan_config(PUBLISHED) == CONFIG
    first_version = {key: value for key, value in PUBLISHED.items() if not key.endswith("at_final")}
    assert bigvgan_config(first_version) == replace(CONFIG, final_bias=True, final_tanh=True)
    with pytest.raises(ModelError, match="resblock '2', not '1', activation 'snake', not 'snakebeta'"):
        bigvgan_config(PUBLISHED | {"resblock": "2", "activation": "snake"})
    with pytest.raises(ModelError, match="has no 'num_mels'"):
        bigvgan_config({key: value for key, value in PUBLISHED.items() if key != "num_mels"})
    with pytest.raises(ModelError, match="1 upsampling rates, 2 kernels"):
        bigvgan_config(PUBLISHED | {"upsample_rates": [3]})


def test_a_mel_frame_becomes_hop_samples_within_one() -> None:
    vocoder = BigVGAN(CONFIG).eval()
    assert vocoder.config.hop == 6
    wave = vocoder(100 * torch.randn(2, 5, 7))
    assert wave.shape == (2, 42) and wave.abs().max() <= 1
    with pytest.raises(ModelError, match=r"takes mels \[batch, 5, frames\], got \[2, 4, 7\]"):
        vocoder(torch.randn(2, 4, 7))


def test_doubling_and_halving_the_rate_keep_a_slow_wave_and_its_place() -> None:
    lowpass = half_band_filter(TAPS)
    torch.testing.assert_close(lowpass, lowpass.flip(0))
    at = torch.arange(400.0)
    wave = torch.sin(0.3 * at).repeat(2, 3, 1)
    twice = upsample(wave, lowpass)
    inner = slice(20, -20)
    # Sample 2n of the doubled wave lies a quarter sample before n, sample 2n + 1 a quarter after.
    expected = torch.sin(0.3 * (torch.arange(800.0) / 2 - 0.25)).expand_as(twice)
    torch.testing.assert_close(twice[..., inner], expected[..., inner], atol=1e-2, rtol=0)
    torch.testing.assert_close(downsample(twice, lowpass)[..., inner], wave[..., inner], atol=1e-2, rtol=0)

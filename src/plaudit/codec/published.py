"""Published mel VAEs and vocoders: their names and layouts to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plaudit.codec.bigvgan import BigVGAN, BigVGANConfig
from plaudit.codec.mel import MelSettings
from plaudit.codec.mel_vae import EPSILON, MelVAE, MelVAEConfig
from plaudit.errors import ModelError
from plaudit.released import fold_weight_norm, renamed, require, require_sizes, unwrap

BIGVGAN, MEL_VAE = "BigVGAN", "MMAudio's mel VAE"

MEL_VAE_NAMES = (
    (r"^mel_(mean|std)$", r"data_\1"),
    (r"^(encoder|decoder)\.middle\.before\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.middle\.after\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.middle\.attention\.out\.", r"\1.mid.attn_1.proj_out."),
    (r"^(encoder|decoder)\.middle\.attention\.", r"\1.mid.attn_1."),
    (r"^encoder\.levels\.(\d)\.", r"encoder.down.\1.block."),
    (r"^decoder\.levels\.(\d)\.", r"decoder.up.\1.block."),
    (r"^encoder\.downsample\.", "encoder.down.0.downsample."),
    (r"^decoder\.upsample\.", "decoder.up.1.upsample."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
"""Our names to the published ones, applied in order."""

GAINS = ("encoder.learnable_gain", "decoder.learnable_gain")
"""Scalars that the published network adds to 1 and multiplies its last convolutions by."""

BIGVGAN_NAMES = (
    (r"^conv_in\.", "conv_pre."),
    (r"^conv_out\.", "conv_post."),
    (r"^activation\.", "activation_post."),
    (r"^stages\.(\d+)\.upsample\.", r"ups.\1.0."),
    (r"\.log_(alpha|beta)$", r".act.\1"),
)
"""Our names to the published ones, but for those of the residual blocks."""


def mel_vae_from_published(checkpoint: Mapping[str, Any]) -> MelVAE:
    """MMAudio's mel VAE from the content of its file; its sizes are read from the weights.

    Weights are normalized here, once. ModelError lists, with shapes, what is missing, unknown or does not fit.
    """
    state = unwrap(checkpoint)
    with torch.device("meta"):
        vae = MelVAE(_mel_vae_config(state))
    own = vae.state_dict()
    theirs = {ours: renamed(ours, MEL_VAE_NAMES) for ours in own}
    expected = {published: tuple(own[ours].shape) for ours, published in theirs.items()}
    expected |= dict.fromkeys(GAINS, ()) | dict.fromkeys(("data_mean", "data_std"), (1, vae.config.bands, 1))
    require(state, MEL_VAE, expected)
    converted = {ours: _folded(published, state) for ours, published in theirs.items()}
    vae.load_state_dict(converted, assign=True)
    return vae.eval().requires_grad_(False)


def mel_settings(published: Mapping[str, Any]) -> MelSettings:
    """The spectrogram that the `config.json` of a BigVGAN release describes; ModelError where it is of another kind.

    Known is the one whose window is as long as its transform and whose bands reach from 0 Hz to half the rate.
    """
    try:
        rate, n_fft = published["sampling_rate"], published["n_fft"]
        window, low, high = published["win_size"], published["fmin"], published["fmax"]
        settings = MelSettings(rate, n_fft, published["hop_size"], published["num_mels"], "natural")
    except KeyError as error:
        raise ModelError(f"the configuration of BigVGAN has no {error}; take the config.json of its release") from None
    if window != n_fft or low != 0 or high not in (None, rate / 2):
        raise ModelError(
            f"this BigVGAN's spectrogram is not known here: window {window} for {n_fft} points, {low} to {high} Hz"
        )
    return settings


def bigvgan_config(published: Mapping[str, Any]) -> BigVGANConfig:
    """Our sizes from the `config.json` of a release; ModelError where a key is missing or means another network."""
    fixed = {"resblock": "1", "activation": "snakebeta", "snake_logscale": True}
    given = {key: published.get(key) for key in fixed}
    different = [f"{key} {given[key]!r}, not {fixed[key]!r}" for key in fixed if given[key] != fixed[key]]
    if different:
        raise ModelError(f"this configuration is not of a BigVGAN known here: {', '.join(different)}")
    try:
        return BigVGANConfig(
            bands=published["num_mels"],
            channels=published["upsample_initial_channel"],
            upsample_rates=tuple(published["upsample_rates"]),
            upsample_kernels=tuple(published["upsample_kernel_sizes"]),
            block_kernels=tuple(published["resblock_kernel_sizes"]),
            block_dilations=tuple(tuple(dilations) for dilations in published["resblock_dilation_sizes"]),
            # The first version's configurations do not have these two keys.
            final_bias=published.get("use_bias_at_final", True),
            final_tanh=published.get("use_tanh_at_final", True),
        )
    except KeyError as error:
        raise ModelError(f"the configuration of BigVGAN has no {error}; take the config.json of its release") from None


def published_config(mel: MelSettings, vocoder: BigVGANConfig) -> dict[str, Any]:
    """The `config.json` of a BigVGAN release for this spectrogram and vocoder."""
    return {
        "resblock": "1",
        "upsample_rates": list(vocoder.upsample_rates),
        "upsample_kernel_sizes": list(vocoder.upsample_kernels),
        "upsample_initial_channel": vocoder.channels,
        "resblock_kernel_sizes": list(vocoder.block_kernels),
        "resblock_dilation_sizes": [list(dilations) for dilations in vocoder.block_dilations],
        "use_tanh_at_final": vocoder.final_tanh,
        "use_bias_at_final": vocoder.final_bias,
        "activation": "snakebeta",
        "snake_logscale": True,
        "num_mels": mel.bands,
        "hop_size": mel.hop,
        "sampling_rate": mel.sample_rate,
        "n_fft": mel.n_fft,
        "win_size": mel.n_fft,
        "fmin": 0,
        "fmax": None,
    }


def bigvgan_from_published(checkpoint: Mapping[str, Any], config: BigVGANConfig) -> BigVGAN:
    """The vocoder in the content of a released file, with or without weight norm.

    The released low-pass filters are ignored; ours are the same. ModelError lists, with shapes, what is missing,
    unknown or does not fit.
    """
    folded = fold_weight_norm(unwrap(checkpoint))
    state = {name: value for name, value in folded.items() if not name.endswith(".filter")}
    with torch.device("meta"):
        vocoder = BigVGAN(config)
    own = vocoder.state_dict()
    theirs = {ours: _bigvgan_name(ours, len(config.block_kernels)) for ours in own}
    require(state, BIGVGAN, {published: tuple(own[ours].shape) for ours, published in theirs.items()})
    vocoder.load_state_dict({ours: state[published].float() for ours, published in theirs.items()}, assign=True)
    return vocoder.eval().requires_grad_(False)


def _mel_vae_config(state: Mapping[str, Tensor]) -> MelVAEConfig:
    require_sizes(state, MEL_VAE, {"encoder.conv_in.weight": 3, "decoder.conv_in.weight": 3})
    hidden, bands, _ = state["encoder.conv_in.weight"].shape
    return MelVAEConfig(bands, state["decoder.conv_in.weight"].shape[1], hidden)


def _folded(name: str, state: Mapping[str, Tensor]) -> Tensor:
    """The published tensor `name` as the network uses it."""
    value = state[name].float()
    if name.startswith("data_"):
        return value.flatten()
    rms = value.flatten(1).norm(dim=1) / value[0].numel() ** 0.5
    value = value / (EPSILON + rms[:, None, None]) / value[0].numel() ** 0.5
    if name.endswith(".qkv.weight"):  # rows (channel, 3) -> (3, channel)
        return value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    if name.endswith("coder.conv_out.weight"):
        return value * (1 + state[name.replace("conv_out.weight", "learnable_gain")].float())
    return value


def _bigvgan_name(ours: str, blocks_per_stage: int) -> str:
    """Where one of our tensors lies in a published state dict: all stages' blocks and activations count on."""
    name = renamed(ours, BIGVGAN_NAMES)
    if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.layers\.(\d+)\.(\w+)([12])\.(.*)", name):
        stage, block, layer, kind, which, rest = match.groups()
        index = int(stage) * blocks_per_stage + int(block)
        part = f"convs{which}.{layer}" if kind == "conv" else f"activations.{2 * int(layer) + int(which) - 1}"
        return f"resblocks.{index}.{part}.{rest}"
    return name

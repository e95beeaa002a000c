"""Published mel VAEs and vocoders: their names and layouts to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plaudit.codec.mel_vae import EPSILON, MelVAE, MelVAEConfig
from plaudit.released import require, require_sizes, unwrap

MEL_VAE = "MMAudio's mel VAE"

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


def mel_vae_from_published(checkpoint: Mapping[str, Any]) -> MelVAE:
    """MMAudio's mel VAE from the content of its file; its sizes are read from the weights.

    Weights are normalized here, once. ModelError lists, with shapes, what is missing, unknown or does not fit.
    """
    state = unwrap(checkpoint)
    with torch.device("meta"):
        vae = MelVAE(_mel_vae_config(state))
    own = vae.state_dict()
    theirs = {ours: _renamed(ours, MEL_VAE_NAMES) for ours in own}
    expected = {published: tuple(own[ours].shape) for ours, published in theirs.items()}
    expected |= dict.fromkeys(GAINS, ()) | dict.fromkeys(("data_mean", "data_std"), (1, vae.config.bands, 1))
    require(state, MEL_VAE, expected)
    converted = {ours: _folded(published, state) for ours, published in theirs.items()}
    vae.load_state_dict(converted, assign=True)
    return vae.eval().requires_grad_(False)


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


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name

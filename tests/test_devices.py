"""No part of a model makes a tensor on the CPU and mixes it with those of its device.

Without an accelerator, PyTorch's meta device shows it: it computes shapes only, and refuses to mix.
"""

from __future__ import annotations

import torch

from plaudit import loading
from plaudit.codec.chunks import decode_piece
from plaudit.flow import plan_windows
from tests.backbone.tiny import inputs, tiny_model
from tests.codec.test_mel_codec import tiny_codec


def test_decoders_stay_on_their_device() -> None:
    for codec, frames in ((loading.CODECS.load("synthetic"), 12), (tiny_codec(), 8)):
        wave = codec.to("meta").decode(torch.empty(2, frames, codec.latent_dim, device="meta"))
        assert wave.device.type == "meta" and wave.shape == (2, frames * codec.hop)


def test_long_decoding_stays_on_its_device() -> None:
    for codec, frames in ((loading.CODECS.load("synthetic"), 200), (tiny_codec(), 600)):
        wave = decode_piece(codec.to("meta"), torch.empty(1, frames, codec.latent_dim, device="meta"))
        assert wave.device.type == "meta" and wave.shape == (1, frames * codec.hop)


def test_windows_stay_on_their_device() -> None:
    windows = plan_windows(40, 16, 4, loop=True)
    x = torch.empty(2, 40, 3, device="meta")
    assert windows.join(windows.cut(x)).device.type == "meta"


def test_networks_stay_on_their_device_whatever_carries_the_score() -> None:
    latents, text, t = inputs(2)
    for injection in ("none", "global_adaln", "input_add", "score_token", "cross_attention", "film"):
        model = tiny_model(injection).to("meta")
        score = None if injection == "none" else torch.empty(2, device="meta")
        assert model(latents.to("meta"), text.to("meta"), t.to("meta"), score).device.type == "meta"

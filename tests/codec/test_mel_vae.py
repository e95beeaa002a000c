from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plaudit.codec.mel_codec import mel_vae_from_published
from plaudit.codec.mel_vae import MelVAE, MelVAEConfig, residual_sum, silu, unit_rms
from plaudit.errors import AudioError, ModelError

CONFIG = MelVAEConfig(bands=6, latent_dim=3, hidden=4)


def published(bands: int = 6) -> dict[str, Tensor]:
    """Random weights under the published names and shapes, for CONFIG or another number of bands."""
    shapes: dict[str, tuple[int, ...]] = {"data_mean": (1, bands, 1), "data_std": (1, bands, 1)}
    for side, names in (("encoder", ("down", 2)), ("decoder", ("up", 3))):
        middle = {f"{block}.{c}": (16, 16, 3) for block in ("block_1", "block_2") for c in ("conv1", "conv2")}
        middle |= {"attn_1.qkv": (48, 16, 1), "attn_1.proj_out": (16, 16, 1)}
        shapes |= {f"{side}.mid.{name}.weight": shape for name, shape in middle.items()}
        shapes[f"{side}.learnable_gain"] = ()
        widths = (4, 8, 16)
        inputs = (4, 4, 8) if side == "encoder" else (8, 16, 16)
        for level, (first, width) in enumerate(zip(inputs, widths, strict=True)):
            for block in range(names[1]):
                stem, narrow = f"{side}.{names[0]}.{level}.block.{block}.", first if block == 0 else width
                shapes |= {stem + "conv1.weight": (width, narrow, 3), stem + "conv2.weight": (width, width, 3)}
                if narrow != width:
                    shapes[stem + "nin_shortcut.weight"] = (width, narrow, 1)
    shapes |= {"encoder.conv_in.weight": (4, bands, 3), "encoder.conv_out.weight": (6, 16, 3)}
    shapes |= {"decoder.conv_in.weight": (16, 3, 3), "decoder.conv_out.weight": (bands, 4, 3)}
    shapes |= {f"encoder.down.0.downsample.conv{i}.weight": (4, 4, 1) for i in (1, 2)}
    shapes["decoder.up.1.upsample.conv.weight"] = (8, 8, 3)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_an_import_reads_its_sizes_and_ignores_the_scale_of_the_weights() -> None:
    state = published()
    vae = mel_vae_from_published({"state_dict": {f"module.{name}": value for name, value in state.items()}})
    assert vae.config == CONFIG
    louder = {name: value * (100 if name.endswith("weight") else 1) for name, value in state.items()}
    mel = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(2))
    means = [made.encode(mel).mean for made in (mel_vae_from_published(louder), vae)]
    torch.testing.assert_close(*means, rtol=1e-3, atol=1e-3)


def test_missing_unknown_and_misshapen_tensors_are_all_named() -> None:
    state = published()
    del state["decoder.learnable_gain"], state["encoder.mid.attn_1.qkv.weight"]
    state |= {"loss.weight": torch.zeros(2), "data_std": torch.zeros(5)}
    with pytest.raises(ModelError) as error:
        mel_vae_from_published(state)
    message = str(error.value)
    assert "missing decoder.learnable_gain ()" in message
    assert "missing encoder.mid.attn_1.qkv.weight (48, 16, 1)" in message
    assert "unknown loss.weight (2,)" in message
    assert "data_std is (5,), not (1, 6, 1)" in message
    assert "\n" not in message
    with pytest.raises(ModelError, match=r"mel VAE: missing encoder\.conv_in\.weight.*it holds weight"):
        mel_vae_from_published({"weight": torch.zeros(3)})


def test_shapes_are_checked_and_halve_in_time() -> None:
    vae = MelVAE(CONFIG).eval()
    posterior = vae.encode(torch.randn(2, 6, 10))
    assert posterior.mean.shape == posterior.std.shape == (2, 5, 3)
    assert vae.decode(posterior.mean).shape == (2, 6, 10)
    for mel in (torch.zeros(2, 6, 9), torch.zeros(2, 5, 10), torch.zeros(6, 10), torch.zeros(1, 6, 0)):
        with pytest.raises(AudioError, match="takes"):
            vae.encode(mel)
    for latents in (torch.zeros(2, 5, 4), torch.zeros(2, 0, 3), torch.zeros(5, 3)):
        with pytest.raises(ModelError, match="decodes"):
            vae.decode(latents)


def test_the_parts_preserve_magnitude() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 4, 64, 500, generator=generator)
    for made in (unit_rms(5 * x), silu(x), residual_sum(x, y)):
        assert made.square().mean().sqrt().item() == pytest.approx(1, abs=0.02)

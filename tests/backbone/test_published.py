from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plaudit.backbone import FluxAudio, FluxAudioConfig, initialize
from plaudit.backbone.published import from_published, to_published
from plaudit.errors import ModelError
from tests.backbone.tiny import wake


def published() -> dict[str, Tensor]:
    """A published state dict of a small network (widths rounded to 256 as published)."""
    config = FluxAudioConfig(
        latent_dim=5, text_dim=12, text_c_dim=10, hidden_dim=16, depth=3, fused_depth=1, num_heads=2, text_length=7
    )
    model = FluxAudio(config)
    initialize(model, 0)
    state = to_published(wake(model))
    del state["score_mean"], state["score_std"]
    return state


@pytest.mark.parametrize("prefix", ["", "module.", "ema_model.", "module.ema_model."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_wrapping_is_read(prefix: str, wrapped: bool) -> None:
    state = {prefix + name: value for name, value in published().items()}
    state |= {prefix + name: torch.zeros(2) for name in ("t_embed.freqs", "latent_rot", "text_rot", "a._extra_state")}
    model = from_published({"state_dict": state, "epoch": 3} if wrapped else state)
    back = to_published(model)
    assert all(torch.equal(back[name], value) for name, value in published().items())


def test_missing_unknown_and_misshapen_tensors_are_all_named() -> None:
    state = published()
    state["reward_mlp.0.weight"] = torch.zeros(4, 6)
    del state["fused_blocks.0.ffn.w3.weight"]
    state["t_embed.mlp.0.bias"] = torch.zeros(3)
    with pytest.raises(ModelError) as error:
        from_published(state)
    message = str(error.value)
    assert "missing fused_blocks.0.ffn.w3.weight (256, 16, 3)" in message
    assert "unknown reward_mlp.0.weight (4, 6)" in message
    assert "t_embed.mlp.0.bias is (3,), not (16,)" in message
    assert "\n" not in message


def test_a_name_map_covers_weights_whose_published_names_are_unknown() -> None:
    state = published()
    theirs = {
        "reward.mlp.0.weight": ("score.embedder.mlp.0.weight", torch.randn(256, 64)),
        "reward.mlp.0.bias": ("score.embedder.mlp.0.bias", torch.randn(256)),
        "reward.mlp.2.weight": ("score.embedder.mlp.2.weight", torch.randn(16, 256)),
        "reward.mlp.2.bias": ("score.embedder.mlp.2.bias", torch.randn(16)),
        "reward.null": ("score.embedder.null", torch.randn(16)),
    }
    state |= {name: value for name, (_, value) in theirs.items()}
    model = from_published(state, "global_adaln", {name: ours for name, (ours, _) in theirs.items()})
    assert all(torch.equal(model.state_dict()[ours], value) for ours, value in theirs.values())


def test_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"does not fit FluxAudio.*missing empty_string_feat .*it holds weight"):
        from_published({"weight": torch.zeros(3)})

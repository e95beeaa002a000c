from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from plaudit.backbone import INJECTIONS, PRESETS, FluxAudio, FluxAudioConfig
from plaudit.errors import ModelError


def parameters(config: FluxAudioConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in FluxAudio(config).parameters())


def test_published_sizes_have_their_published_parameter_counts() -> None:
    assert parameters(PRESETS["fluxaudio-s-44k"]) == 120_231_848
    assert parameters(PRESETS["fluxaudio-s-16k"]) == 120_106_388
    assert round(parameters(PRESETS["fluxaudio-l-16k"]) / 1e6) in range(475, 485)
    assert round(parameters(PRESETS["fluxaudio-l-44k"]) / 1e6) in range(475, 485)


def test_every_preset_stays_below_the_challenge_limit_with_a_score() -> None:
    for name in ("fluxaudio-s-44k", "fluxaudio-l-44k"):
        assert parameters(replace(PRESETS[name], injection="global_adaln")) < 500e6


@pytest.mark.parametrize("hidden, multiple, inner", [(448, 256, 1280), (64, 256, 256), (192, 64, 512), (96, 64, 256)])
def test_inner_width_is_two_thirds_of_four_times_the_width_rounded_up(hidden: int, multiple: int, inner: int) -> None:
    assert replace(PRESETS["synthetic"], hidden_dim=hidden, num_heads=1, mlp_multiple=multiple).mlp_dim == inner


@pytest.mark.parametrize("injection", INJECTIONS.builtin)
def test_config_survives_being_written(injection: str) -> None:
    config = FluxAudioConfig.from_dict({**PRESETS["synthetic"].to_dict(), "injection": injection})
    assert FluxAudioConfig.from_dict(config.to_dict()) == config
    changes = {"score_features": 4, "score_frequencies": [0.5, 2.0], "score_null": -10.0}
    config = FluxAudioConfig.from_dict({**config.to_dict(), **changes})
    assert FluxAudioConfig.from_dict(config.to_dict()) == config and hash(config) == hash(replace(config))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"hidden_dims": 3}, "unknown settings hidden_dims"),
        ({"injection": "adaln"}, "adaln"),
        ({"depth": -1}, "depth"),
        ({"latent_dim": "40"}, "latent_dim"),
        ({"num_heads": True}, "num_heads"),
        ({"fused_depth": 6}, "fused_depth"),
        ({"num_heads": 5}, "heads"),
        ({"score_features": 7}, "even"),
        ({"score_frequencies": "fast"}, "score_frequencies must be spaced, time or 32 numbers"),
        ({"score_frequencies": [1.0, 2.0]}, "score_frequencies must be spaced, time or 32 numbers"),
        ({"score_frequencies": [float("nan")] * 32}, "score_frequencies"),
        ({"score_frequencies": ["1"] * 32}, "score_frequencies"),
        ({"score_null": "zero"}, "score_null must be vector, scalar or a number"),
        ({"score_null": 10**400}, "score_null"),
        ({"score_null": True}, "score_null"),
    ],
)
def test_bad_values_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        FluxAudioConfig.from_dict({**PRESETS["synthetic"].to_dict(), **changes})


def test_a_missing_value_is_named() -> None:
    values = PRESETS["synthetic"].to_dict()
    del values["depth"]
    with pytest.raises(ModelError, match="depth"):
        FluxAudioConfig.from_dict(values)

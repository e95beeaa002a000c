from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.backbone import FluxAudio, FluxAudioConfig, initialize
from plaudit.backbone.base import read_config
from plaudit.backbone.meanaudio import MeanAudio, MeanAudioConfig
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


TIME_FREQUENCIES = 10000.0 ** (-torch.arange(0, 256, 2) / 256)


@pytest.mark.parametrize("prefix", ["", "module.", "ema_model.", "module.ema_model."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "generator", "weights"])
def test_every_wrapping_is_read(prefix: str, wrapper: str) -> None:
    state = {prefix + name: value for name, value in published().items()}
    state |= {prefix + name: torch.zeros(2) for name in ("latent_rot", "text_rot", "a._extra_state")}
    state[f"{prefix}t_embed.freqs"] = TIME_FREQUENCIES
    model = from_published({wrapper: state, "it": 3, "optimizer": {"lr": 0.1}} if wrapper else state)
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


@pytest.mark.parametrize("axes", [1, 2])
def test_leading_axes_of_size_one_are_squeezed(axes: int) -> None:
    state = published()
    lead = (1,) * axes
    for name in ("empty_string_feat", "empty_string_feat_c", "t_embed.mlp.0.bias", "t_embed.mlp.0.weight"):
        state[name] = state[name].reshape(*lead, *state[name].shape)
    state["latent_mean"], state["latent_std"] = state["latent_mean"].flatten(), state["latent_std"][0]
    back = to_published(from_published(state))
    assert all(torch.equal(back[name], value) for name, value in published().items())
    state["empty_string_feat"] = published()["empty_string_feat"].expand(2, -1, -1)
    with pytest.raises(ModelError, match=r"empty_string_feat is \(2, 7, 12\), not 2 axes"):
        from_published(state)


def test_a_missing_pooled_text_is_the_mean_of_the_tokens_where_it_is_as_wide() -> None:
    state = published()
    del state["empty_string_feat_c"]
    with pytest.raises(ModelError, match="missing empty_string_feat_c"):  # tokens are 12 wide, the pooled text 10
        from_published(state)
    state["text_cond_proj.0.weight"] = torch.randn(16, 12)
    model = from_published(state)
    torch.testing.assert_close(model.empty_pooled, state["empty_string_feat"].mean(0), rtol=0, atol=0)
    state["empty_string_feat"] = state["empty_string_feat"][None]
    assert torch.equal(from_published(state).empty_pooled, model.empty_pooled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_frequencies_of_times_in_a_file_are_checked(dtype: torch.dtype) -> None:
    state = published() | {"t_embed.freqs": TIME_FREQUENCIES.to(dtype)[None]}
    assert torch.equal(to_published(from_published(state))["t_embed.mlp.0.weight"], state["t_embed.mlp.0.weight"])
    for wrong in (10000 * TIME_FREQUENCIES, TIME_FREQUENCIES[:64], torch.zeros(128), TIME_FREQUENCIES.flip(0)):
        with pytest.raises(ModelError, match=r"t_embed\.freqs holds other frequencies than 10000\^\(-2i/256\)"):
            from_published(published() | {"t_embed.freqs": wrong.to(dtype)})


NAMES = {f"reward.{part}": f"score.embedder.{part}" for part in ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight")}
NAMES |= {"reward.mlp.2.bias": "score.embedder.mlp.2.bias"}


def embedder(features: int = 20, hidden: int = 9, null: tuple[int, ...] | None = (16,)) -> dict[str, Tensor]:
    """A score embedder under published names that are not known, of other sizes than ours."""
    shapes: dict[str, tuple[int, ...]] = {"mlp.0.weight": (hidden, features), "mlp.0.bias": (hidden,)}
    shapes |= {"mlp.2.weight": (16, hidden), "mlp.2.bias": (16,)} | ({} if null is None else {"null": null})
    generator = torch.Generator().manual_seed(features)
    return {f"reward.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def embedding(state: dict[str, Tensor], angles: Tensor) -> Tensor:
    """What the published embedder computes, written again: linear, SiLU, linear over cosines and then sines."""
    hidden = torch.cat((angles.cos(), angles.sin()), -1) @ state["reward.mlp.0.weight"].T + state["reward.mlp.0.bias"]
    return F.silu(hidden) @ state["reward.mlp.2.weight"].T + state["reward.mlp.2.bias"]


@pytest.mark.parametrize("injection", ["global_adaln", "input_add", "audio_prepend", "text_prepend"])
@pytest.mark.parametrize(("features", "hidden"), [(20, 9), (256, 16), (64, 256)])
def test_sizes_of_the_score_embedder_are_read_from_the_weights(injection: str, features: int, hidden: int) -> None:
    state = embedder(features, hidden)
    names = NAMES | {"reward.null": "score.embedder.null", "score_frequencies": "time"}
    model = from_published(published() | state, injection, names)
    assert (model.config.score_features, model.config.score_hidden) == (features, hidden)
    assert all(torch.equal(model.state_dict()[names[name]], value) for name, value in state.items())
    scores = torch.tensor([-1.5, 0.0, 5.0])
    angles = scores[:, None] * 10000.0 ** (-torch.arange(0, features, 2) / features)
    torch.testing.assert_close(model.embed_score(scores, 3), embedding(state, angles), atol=1e-5, rtol=1e-5)
    again = from_published(to_published(model), injection)
    assert again.config == model.config and torch.equal(again.embed_score(scores, 3), model.embed_score(scores, 3))


def test_the_file_or_the_map_names_the_frequencies() -> None:
    state, scores = embedder(), torch.tensor([0.3, 2.0])
    names: dict[str, Any] = NAMES | {"reward.null": "score.embedder.null"}
    generator = torch.Generator().manual_seed(3)
    frequencies = torch.rand(10, generator=generator) * 4
    expected = embedding(state, scores[:, None] * frequencies)
    held = {"reward.freqs": frequencies[None]}
    cycles = {"reward.freqs": frequencies / (2 * torch.pi)}
    models = [
        from_published(published() | state, "input_add", names | {"score_frequencies": frequencies.tolist()}),
        from_published(published() | state | held, "input_add", names | {"reward.freqs": "score.embedder.frequencies"}),
        from_published(published() | state | cycles, "input_add", names | {"reward.freqs": "score.embedder.cycles"}),
    ]
    for model in models:
        torch.testing.assert_close(model.embed_score(scores, 2), expected, atol=1e-4, rtol=1e-4)
        again = from_published(to_published(model), "input_add")
        assert again.config == model.config == read_config(json.loads(json.dumps(model.config.to_dict())))
    with pytest.raises(ModelError, match="the name map must say the frequencies of the score's features"):
        from_published(published() | state, "input_add", names)
    with pytest.raises(ModelError, match="are given twice and differ"):
        places = names | {"reward.freqs": "score.embedder.frequencies", "score_frequencies": "time"}
        from_published(published() | state | held, "input_add", places)
    with pytest.raises(ModelError, match="must be spaced, time or 10 numbers"):
        from_published(published() | state, "input_add", names | {"score_frequencies": [1.0]})
    with pytest.raises(ModelError, match=r"unknown reward\.freqs"):
        from_published(published() | state | held, "input_add", names | {"score_frequencies": "time"})


@pytest.mark.parametrize(
    ("shape", "said"),
    [((16,), None), ((1, 16), "vector"), ((1, 1, 16), None), ((), "scalar"), ((1,), None), ((1, 1), "scalar")],
)
def test_a_learned_null_of_either_kind_stands_for_a_dropped_score(shape: tuple[int, ...], said: str | None) -> None:
    state = embedder(null=shape)
    names: dict[str, Any] = NAMES | {"reward.null": "score.embedder.null", "score_frequencies": "time"}
    model = from_published(published() | state, "input_add", names | ({"score_null": said} if said else {}))
    null = state["reward.null"]
    if null.numel() == 1:
        expected = embedding(state, null.flatten()[:, None] * 10000.0 ** (-torch.arange(0, 20, 2) / 20))
    else:
        expected = null.reshape(1, 16)
    assert model.config.score_null == ("scalar" if null.numel() == 1 else "vector")
    dropped_and_given = model.embed_score(torch.tensor([torch.nan, 1.0]), 2)
    torch.testing.assert_close(dropped_and_given[:1], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.embed_score(None, 2), expected.expand(2, -1), atol=1e-5, rtol=1e-5)
    assert (dropped_and_given[1] - expected).abs().max() > 0.1
    model.embed_score(torch.tensor([torch.nan]), 1).sum().backward()
    learned = dict(model.named_parameters())["score.embedder.null"].grad
    assert learned is not None and learned.abs().sum() > 0


def test_a_sentinel_stands_for_a_dropped_score() -> None:
    state = embedder(null=None)
    model = from_published(published() | state, "input_add", NAMES | {"score_frequencies": "time", "score_null": -10})
    expected = model.embed_score(torch.tensor([-10.0]), 1)
    torch.testing.assert_close(model.embed_score(torch.tensor([torch.nan, 2.0]), 2)[:1], expected)
    assert torch.equal(model.embed_score(None, 1), expected)
    assert "score.embedder.null" not in model.state_dict()
    again = from_published(to_published(model), "input_add")
    assert again.config == model.config and torch.equal(again.embed_score(None, 1), expected)
    with pytest.raises(ModelError, match=r"missing score\.embedder\.null \(16,\)"):
        from_published(published() | state, "input_add", NAMES | {"score_frequencies": "time"})
    with pytest.raises(ModelError, match="score_null must be vector, scalar or a number, not 'nothing'"):
        from_published(published() | state, "input_add", NAMES | {"score_frequencies": "time", "score_null": "nothing"})


def test_a_map_drops_tensors_and_is_checked() -> None:
    state = published() | {"step": torch.tensor(7), "reward.x": torch.zeros(2)}
    model = from_published(state, names={"step": None, "reward.x": None})
    assert torch.equal(model.empty_pooled, state["empty_string_feat_c"])
    with pytest.raises(ModelError, match="unknown step"):
        from_published(state, names={"reward.x": None})
    for names, said in (
        ({"nowhere": None}, "the name map has nowhere, which the file does not hold"),
        ({"step": 3}, "step must have one of our names, or null to be left out, not 3"),
        ({"step": "a", "reward.x": "a"}, "a is the place of more than one tensor"),
        ({"step": "latent_mean"}, "the place of latent_mean, which the file holds itself"),
        ({"score_frequencies": ["a"]}, "score_frequencies must be time, spaced or a list of numbers"),
    ):
        with pytest.raises(ModelError, match=said):
            from_published(state, names=names)
    with pytest.raises(ModelError, match="a name map must be"):
        from_published(state, names=["step"])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5,), (1, 7, 12, 1), (0,)])
def test_a_misshapen_tensor_is_refused_whatever_its_axes(shape: tuple[int, ...]) -> None:
    for name in ("empty_string_feat", "latent_mean", "t_embed.mlp.2.weight"):
        if (name, shape) != ("latent_mean", (5,)):
            with pytest.raises(ModelError, match=name):
                from_published(published() | {name: torch.zeros(shape)})


def meanaudio(fixed_score: float | None = None, injection: str = "none") -> MeanAudio:
    config = MeanAudioConfig(
        5, 12, 10, hidden_dim=24, depth=4, fused_depth=2, num_heads=3, text_length=7, injection=injection,
        fixed_score=fixed_score,
    )  # fmt: skip
    model = MeanAudio(config)
    initialize(model, 1)
    wake(model)
    return model


def test_meanaudio_is_known_by_its_second_time() -> None:
    state = to_published(meanaudio())
    held = {name: TIME_FREQUENCIES for name in ("t_embed.freqs", "r_embed.freqs")}
    model = from_published({"it": 1, "weights": state | held})
    assert isinstance(model, MeanAudio) and model.config.num_heads == 3
    assert all(torch.equal(value, state[name]) for name, value in to_published(model).items())
    with pytest.raises(ModelError, match=r"r_embed\.freqs holds other"):
        from_published(state | held | {"r_embed.freqs": torch.zeros(128)})
    del state["r_embed.mlp.2.bias"]
    with pytest.raises(ModelError, match=r"does not fit MeanAudio.*missing r_embed\.mlp\.2\.bias \(24,\)"):
        from_published(state)


def test_the_score_of_a_distilled_model_survives() -> None:
    model = meanaudio(2.5, "input_add")
    again = from_published(to_published(model), "input_add")
    assert again.config == model.config
    with pytest.raises(ModelError, match=r"distilled at score 2\.5"):
        again.embed_score(torch.tensor([1.0]), 1)


def test_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"does not fit FluxAudio.*missing empty_string_feat .*it holds weight"):
        from_published({"weight": torch.zeros(3)})

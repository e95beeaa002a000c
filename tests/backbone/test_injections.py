from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch

from plaudit.backbone import INJECTIONS, FluxAudio, cross_load, layers
from plaudit.backbone.forms import attend
from plaudit.backbone.injections import fourier_features
from plaudit.backbone.layers import concatenate, rotary_table
from plaudit.backbone.published import injection_of, read_injection
from plaudit.errors import ModelError
from tests.backbone.tiny import inputs, tiny_config, tiny_model, wake

SCORED = [name for name in INJECTIONS.builtin if name != "none"]
PREPENDED = ["audio_prepend", "text_prepend"]
"""Even a token that is zero takes part in attention."""


def trained_a_little(injection: str, steps: int = 10) -> FluxAudio:
    """A model that has learned to answer its score: the target is the score itself."""
    model = wake(tiny_model(injection))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    latents, text, t = inputs(8)
    score = torch.linspace(-2, 2, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(latents, text, t, score) - score[:, None, None]).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("injection", [name for name in SCORED if name not in PREPENDED])
def test_at_initialization_any_score_leaves_the_model_unconditioned(injection: str, autocast: bool) -> None:
    plain, conditioned = wake(tiny_model()), wake(tiny_model(injection))
    latents, text, t = inputs(4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = plain(latents, text, t)
        assert expected.abs().max() > 0.01
        scores = torch.tensor([-3.0, 0.0, 5.0, torch.nan])
        assert torch.equal(conditioned(latents, text, t, scores), expected)
        assert torch.equal(conditioned(latents, text, t), expected)


@torch.no_grad()
def begun(injection: str) -> FluxAudio:
    """A new network as `initialize` leaves it, but for its final layer, which would hide everything."""
    model = tiny_model(injection)
    model.final.out.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("injection", SCORED)
def test_training_from_new_weights_begins_with_the_unconditioned_network(injection: str) -> None:
    """Blocks begin as the identity, so that even a token in them changes nothing."""
    latents, text, t = inputs(4)
    with torch.no_grad():
        expected = begun("none")(latents, text, t)
        assert expected.abs().max() > 0.01
        scores = torch.tensor([-3.0, 0.0, 5.0, torch.nan])
        assert torch.equal(begun(injection)(latents, text, t, scores), expected)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("injection", PREPENDED)
def test_a_new_token_in_trained_blocks_changes_the_network_but_not_by_the_score(injection: str, autocast: bool) -> None:
    plain, conditioned = wake(tiny_model()), wake(tiny_model(injection))
    latents, text, t = inputs(4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = conditioned(latents, text, t)
        assert torch.equal(conditioned(latents, text, t, torch.tensor([-3.0, 0.0, 5.0, torch.nan])), expected)
        moved = (expected.float() - plain(latents, text, t).float()).square().mean().sqrt()
        assert 1e-3 < moved / expected.float().square().mean().sqrt() < 0.5


def lengths_of(model: FluxAudio) -> list[int]:
    """The tokens that each block attends over, in order."""
    lengths = []

    def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        lengths.append(keys.shape[2])
        return attend(queries, keys, values)

    latents, text, t = inputs(2)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "attend", attention)
        assert model(latents, text, t, torch.zeros(2)).shape == latents.shape
    return lengths


def test_which_blocks_attend_to_a_prepended_token() -> None:
    """Of 11 frames and 7 words, in two joint blocks and an audio-only one."""
    assert lengths_of(wake(tiny_model("input_add"))) == [18, 18, 11]
    assert lengths_of(wake(tiny_model("audio_prepend"))) == [19, 19, 12]
    assert lengths_of(wake(tiny_model("text_prepend"))) == [19, 19, 11]


@pytest.mark.parametrize("injection", PREPENDED)
def test_the_token_has_position_0_and_its_sequence_follows_from_1(injection: str) -> None:
    """The same network, with the token put into the sequences by hand at those positions."""
    model = trained_a_little(injection)
    latents, text, t = inputs(2)
    scores = torch.tensor([1.5, -0.5])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        conditions = model.conditions(text, scores)
        e = model.embed_score(scores, 2)[:, None]
        condition = (model.time(t) + conditions.pooled)[:, None]
        words, audio = model.text_in(text.tokens), model.audio_in(latents)
        block, first = model.joint_blocks[0], {"audio": audio, "text": words}
        stream, sequence = ("audio", audio) if injection == "audio_prepend" else ("text", words)
        part = getattr(block, stream)
        modulations = part.modulations(condition)
        table = rotary_table(32, model.config.head_dim, e.device)
        token = part.queries_keys_values(e, modulations, table)
        others = part.queries_keys_values(sequence, modulations, table[1:])
        expected = concatenate(token, others)
        first[stream] = torch.cat((e, sequence), 1)
        other = "text" if stream == "audio" else "audio"
        elsewhere = getattr(block, other)
        there = elsewhere.queries_keys_values(first[other], elsewhere.modulations(condition), table)
        both = concatenate(expected, there) if stream == "audio" else concatenate(there, expected)
        seen = []

        def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            seen.append((queries, keys, values))
            return attend(queries, keys, values)

        patch.setattr(layers, "attend", attention)
        model(latents, text, t, scores)
    for ours, by_hand in zip(seen[0], both, strict=True):
        torch.testing.assert_close(ours, by_hand, atol=1e-5, rtol=1e-4)


def test_a_prepended_token_reaches_the_output_through_the_blocks_alone() -> None:
    """Dropped before the final layer, whose windows of seven frames would otherwise hold it."""
    for injection in PREPENDED:
        model = begun(injection)  # its blocks are the identity
        latents, text, t = inputs(2)
        with torch.no_grad():
            before = model(latents, text, t)
            model.score.embedder.null.fill_(50.0)
            assert torch.equal(model(latents, text, t), before)


def test_the_first_frames_also_get_a_token_before_the_audio_by_convolution() -> None:
    """With the token's keys and values gone from attention, the score still moves the first frames."""
    model = trained_a_little("audio_prepend")
    latents, text, t = inputs(1)

    def without_the_token(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return attend(queries, keys[:, :, 1:], values[:, :, 1:])

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "attend", without_the_token)
        low, high = (model(latents, text, t, torch.tensor([s])) for s in (-2.0, 2.0))
    assert (low[:, :3] - high[:, :3]).abs().max() > 1e-4


@pytest.mark.parametrize("injection", SCORED)
def test_every_injection_learns_to_follow_the_score(injection: str) -> None:
    model = trained_a_little(injection)
    latents, text, t = inputs(1)
    with torch.no_grad():
        low, high, null = (model(latents, text, t, torch.tensor([s])) for s in (-2.0, 2.0, torch.nan))
    assert (low - high).abs().max() > 1e-3
    assert (low - null).abs().max() > 1e-3


@pytest.mark.parametrize("injection", SCORED)
def test_every_parameter_takes_part_in_training(injection: str) -> None:
    model = wake(tiny_model(injection))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("score.") and not parameter.any():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    latents, text, t = inputs(4)
    model(latents, text, t, torch.tensor([-1.0, 0.3, 1.0, torch.nan])).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The last text stream is pre-only: what its queries see is never read, so nothing else of it can be idle.
    assert not [name for name in idle if ".text.query_norm" not in name], idle


@pytest.mark.parametrize("injection", SCORED)
def test_a_dropped_score_is_the_same_as_none_and_does_not_touch_the_rest_of_the_batch(injection: str) -> None:
    model = trained_a_little(injection)
    latents, text, t = inputs(2)
    with torch.no_grad():
        mixed = model(latents, text, t, torch.tensor([1.0, torch.nan]))
        torch.testing.assert_close(mixed[1], model(latents, text, t)[1])
        torch.testing.assert_close(mixed[0], model(latents, text, t, torch.tensor([1.0, 1.0]))[0])


def test_scores_are_taken_relative_to_the_training_set() -> None:
    model = trained_a_little("global_adaln")
    latents, text, t = inputs(1)
    with torch.no_grad():
        before = model(latents, text, t, torch.tensor([1.5]))
        model.score_mean.fill_(10.0)
        model.score_std.fill_(2.0)
        torch.testing.assert_close(model(latents, text, t, torch.tensor([13.0])), before)


def test_a_score_given_to_a_model_without_one_is_refused() -> None:
    latents, text, t = inputs(2)
    with pytest.raises(ModelError, match="takes no score"):
        tiny_model()(latents, text, t, torch.zeros(2))


@pytest.mark.parametrize("target", INJECTIONS.builtin)
@pytest.mark.parametrize("source", INJECTIONS.builtin)
def test_cross_loading_shares_the_backbone_and_the_embedder(source: str, target: str) -> None:
    state = wake(tiny_model(source, seed=3)).state_dict()
    model, report = cross_load(state, tiny_config(target))
    loaded = model.state_dict()
    assert sorted(loaded.keys() - state.keys()) == report.new
    assert sorted(state.keys() - loaded.keys()) == report.unused
    assert all(torch.equal(loaded[name], state[name]) for name in loaded.keys() & state.keys())
    if "none" not in (source, target):
        assert not [name for name in report.new + report.unused if name.startswith("score.embedder")]


EXACT = [name for name in INJECTIONS.builtin if name not in PREPENDED]


@pytest.mark.parametrize("target", EXACT)
@pytest.mark.parametrize("source", EXACT)
def test_at_initialization_cross_loading_is_the_same_function(source: str, target: str) -> None:
    model = wake(tiny_model(source, seed=3))
    loaded, _ = cross_load(model.state_dict(), tiny_config(target))
    latents, text, t = inputs(4)
    scores = torch.tensor([-3.0, 0.0, 5.0, torch.nan])
    with torch.no_grad():
        expected = model(latents, text, t)
        assert expected.abs().max() > 0.01
        assert torch.equal(loaded(latents, text, t), expected)
        if target != "none":
            assert torch.equal(loaded(latents, text, t, scores), expected)


@pytest.mark.parametrize("target", ["score_token", "cross_attention", "film"])
def test_what_cross_loading_adds_does_nothing_until_trained(target: str) -> None:
    trained = trained_a_little("input_add")
    plain, _ = cross_load(trained.state_dict(), tiny_config())
    model, _ = cross_load(trained.state_dict(), tiny_config(target))
    latents, text, t = inputs(2)
    with torch.no_grad():
        assert torch.equal(model(latents, text, t, torch.tensor([1.0, 2.0])), plain(latents, text, t))


PUBLISHED = ["global_adaln", "input_add", "audio_prepend", "text_prepend"]


@pytest.mark.parametrize("source, target", list(permutations(PUBLISHED, 2)))
def test_cross_loading_between_the_published_injections_uses_every_weight(source: str, target: str) -> None:
    trained = trained_a_little(source)
    model, report = cross_load(trained.state_dict(), tiny_config(target))
    assert report.new == report.unused == []
    latents, text, t = inputs(2)
    with torch.no_grad():
        low, high = (model(latents, text, t, torch.full((2,), s)) for s in (-2.0, 2.0))
    assert (low - high).abs().max() > 1e-4


def test_cross_loading_another_size_is_refused() -> None:
    state = tiny_model("global_adaln").state_dict()
    state["final.out.bias"] = torch.zeros(9)
    with pytest.raises(ModelError, match=r"final\.out\.bias"):
        cross_load(state, tiny_config("input_add"))


@pytest.mark.parametrize(
    "version, injection", [("v1", "global_adaln"), ("v2", "input_add"), ("v3", "audio_prepend"), ("v5", "text_prepend")]
)
def test_a_published_configuration_names_the_injection(version: str, injection: str, tmp_path: Path) -> None:
    tokens = {"seq_len": 1, "projector": "mlp"}
    config = {"model": f"fluxaudio_score_s_{version}_44k", "use_score": True, "score_tokens": tokens}
    assert injection_of(config) == injection == injection_of({"model": version})
    (tmp_path / "config.yaml").write_text(
        f"model: fluxaudio_score_s_{version}_44k\nnum_iterations: 200_000\n"
        "use_score: True\nscore_tokens:\n  seq_len: 1\n  projector: mlp\n"
    )
    assert read_injection(tmp_path / "config.yaml") == injection
    assert injection_of(config | {"use_score": False}) == "none"


@pytest.mark.parametrize(
    "config, said",
    [
        ({"model": "fluxaudio_score_s_v4_44k"}, "v4 is not described publicly; those known are v1 .global_adaln., v2"),
        ({"model": "fluxaudio_s_44k"}, "'fluxaudio_s_44k', which names no version"),
        ({}, "is None, which names no version"),
        ({"model": "v3", "score_tokens": {"seq_len": 2, "projector": "mlp"}}, "takes score_tokens"),
        ({"model": "v5", "score_tokens": {"seq_len": 1, "projector": "linear"}}, "text_prepend takes score_tokens"),
    ],
)
def test_a_configuration_of_another_head_is_refused_in_one_line(config: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said) as error:
        injection_of(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"a: [", b"- x\n", b"\xff\xfe"])
def test_a_file_that_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    for path in (tmp_path / "c.yaml", tmp_path / "none.yaml"):
        with pytest.raises(ModelError, match="training configuration"):
            read_injection(path)


def test_fourier_features_tell_scores_apart_and_move_slowly() -> None:
    scores = torch.linspace(-4, 8, 121)
    features = fourier_features(scores, 64)
    assert features.shape == (121, 64)
    apart = torch.cdist(features, features)
    assert apart[~torch.eye(121, dtype=torch.bool)].min() > 0.1
    assert (features[1:] - features[:-1]).norm(dim=1).max() < 1.0

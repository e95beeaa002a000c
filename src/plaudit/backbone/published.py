"""Published checkpoints of FluxAudio and MeanAudio: their names and layouts to ours, and back."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from plaudit.backbone.base import build_backbone
from plaudit.backbone.config import FLUXAUDIO, MEANAUDIO, SCALAR, SPACED, TIME, VECTOR, FluxAudioConfig, is_number
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.injections import spaced_frequencies
from plaudit.backbone.layers import TimeEmbedding, time_frequencies
from plaudit.backbone.meanaudio import MeanAudioConfig
from plaudit.errors import ModelError
from plaudit.published import renamed, require, require_sizes, unwrap
from plaudit.settings import shortened

DESCRIPTIONS = {FLUXAUDIO: "FluxAudio (a name map may help)", MEANAUDIO: "MeanAudio (a name map may help)"}
EXTRAS = ("latent_rot", "text_rot", "_extra_state")
"""Entries in some released files that no model needs."""

TIMES = ("t_embed.", "r_embed.")
"""Published names of the embeddings of times begin so; some files hold their frequencies, which are not learned."""

TOKENS, POOLED = "empty_string_feat", "empty_string_feat_c"

FREQUENCIES, CYCLES = "score.embedder.frequencies", "score.embedder.cycles"
SENTINEL, FIXED_SCORE = "score.embedder.sentinel", "score.fixed"
"""Our names of what conditions on a score and is not learned, so is in the config with us: the frequencies in radians
or cycles per unit of the score, the score that stands for a dropped one, and that of a distilled model."""

EMBEDDER, NULL = "score.embedder.mlp.0.weight", "score.embedder.null"

OURS_TO_PUBLISHED = (
    (r"^audio_in\.", "audio_input_proj."),
    (r"^text_in\.", "text_input_proj."),
    (r"^pooled_in\.", "text_cond_proj."),
    (r"^time\.", "t_embed."),
    (r"^end_time\.", "r_embed."),
    (r"^final\.out\.", "final_layer.conv."),
    (r"^final\.", "final_layer."),
    (r"^(joint_blocks\.\d+)\.audio\.", r"\1.latent_block."),
    (r"^(joint_blocks\.\d+)\.text\.", r"\1.text_block."),
    (r"^(fused_blocks\.\d+)\.audio\.", r"\1."),
    (r"\.modulation\.", ".adaLN_modulation.1."),
    (r"\.qkv\.", ".attn.qkv."),
    (r"\.query_norm\.", ".attn.q_norm."),
    (r"\.key_norm\.", ".attn.k_norm."),
    (r"(blocks\..*)\.out\.", r"\1.linear1."),
    (r"(blocks\..*)\.mlp\.", r"\1.ffn."),
    (r"\.down\.", ".w2."),
    (r"^empty_tokens$", "empty_string_feat"),
    (r"^empty_pooled$", "empty_string_feat_c"),
)
"""Our names to the published ones, applied in order."""


HEADS = {"v1": "global_adaln", "v2": "input_add", "v3": "audio_prepend", "v5": "text_prepend"}
"""Our injections by the versions of the published score heads, as in `fluxaudio_score_s_v2_44k`."""


def read_injection(path: Path) -> str:
    """The injection of a published training configuration in a YAML file; ModelError where it names none of ours."""
    try:
        config = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ModelError(f"{path} is not readable as a training configuration: {reason}") from None
    if not isinstance(config, Mapping):
        raise ModelError(f"{path} is not a training configuration: it must be a mapping of settings")
    return injection_of(config)


def injection_of(config: Mapping[str, Any]) -> str:
    """The injection of a published training configuration; ModelError where it is none of ours.

    `model` names the head's version; `score_tokens`, of the heads that prepend tokens, their number and what makes
    them: {seq_len: 1, projector: mlp}.
    """
    model = config.get("model")
    if not config.get("use_score", True):
        return "none"
    version = re.search(r"(?<![a-z0-9])v\d+(?![a-z0-9])", str(model))
    if version is None:
        raise ModelError(f"the configuration's model is {model!r}, which names no version of a score head (v1 to v5)")
    if version.group() not in HEADS:
        known = ", ".join(f"{name} ({injection})" for name, injection in HEADS.items())
        raise ModelError(f"score head {version.group()} is not described publicly; those known are {known}")
    injection = HEADS[version.group()]
    tokens = config.get("score_tokens", PREPENDED)
    if injection in ("audio_prepend", "text_prepend") and tokens != PREPENDED:
        raise ModelError(f"{injection} takes score_tokens {PREPENDED}, as published, not {tokens!r}")
    return injection


PREPENDED = {"seq_len": 1, "projector": "mlp"}
"""The published `score_tokens`: one token, made by an MLP."""


def published_names(ours: str) -> tuple[str, ...]:
    """The published name of one of our tensors, or the two of a joined gate and up projection.

    Score weights and score statistics have no published names and keep ours.
    """
    if ours.startswith("score"):
        return (ours,)
    ours = renamed(ours, OURS_TO_PUBLISHED)
    if ".gate_up." in ours:
        return ours.replace(".gate_up.", ".w1."), ours.replace(".gate_up.", ".w3.")
    return (ours,)


@dataclass(frozen=True)
class NameMap:
    """Places of published tensors whose names are not known here, and what the file does not say of its score.

    names: published name -> ours. dropped: published names that are left out. frequencies, null: the config's
    score_frequencies and score_null, None where the file's tensors or the defaults say them.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    frequencies: str | tuple[float, ...] | None = None
    null: str | float | None = None


def read_name_map(values: object) -> NameMap:
    """A map as users write it; ModelError where it is not one.

    {"published name": "our name", ...}, with null in place of our name for a tensor to leave out, and besides
    "score_frequencies" and "score_null" with values as in a backbone's config.
    """
    if not isinstance(values, Mapping):
        raise ModelError('a name map must be {"published name": "our name", ...}, with null for a tensor to leave out')
    places = {name: ours for name, ours in values.items() if name not in ("score_frequencies", "score_null")}
    for name, ours in places.items():
        if not isinstance(ours, str | None):
            raise ModelError(f"name map: {name} must have one of our names, or null to be left out, not {ours!r}")
    names = {name: ours for name, ours in places.items() if ours is not None}
    if doubled := sorted(ours for ours, count in Counter(names.values()).items() if count > 1):
        raise ModelError(f"name map: {', '.join(doubled)} is the place of more than one tensor")
    frequencies = values.get("score_frequencies")
    if isinstance(frequencies, list) and all(is_number(value) for value in frequencies):
        frequencies = tuple(frequencies)
    elif frequencies not in (None, TIME, SPACED):
        wrong = shortened(repr(frequencies))
        raise ModelError(f"name map: score_frequencies must be {TIME}, {SPACED} or a list of numbers, not {wrong}")
    return NameMap(names, frozenset(places.keys() - names.keys()), frequencies, values.get("score_null"))


def from_published(
    checkpoint: Mapping[str, Any], injection: str = "none", names: Mapping[str, Any] | None = None
) -> FluxAudio:
    """The model in a published checkpoint (the content of its file), with its sizes inferred from the weights.

    names: see `read_name_map`, for weights whose published names are not known here, such as a score embedder's.
    Leading axes of size one do not matter. ModelError lists the tensors that are missing, unknown or of a wrong shape.
    """
    mapping = read_name_map(names or {})
    state = _renamed(unwrap(checkpoint), mapping)
    _check_times(state)
    state = _with_empty_text(state)
    config = infer_config(state, injection, mapping)
    in_config = {FREQUENCIES, CYCLES, SENTINEL} if injection != "none" else set()
    if getattr(config, "fixed_score", None) is not None:
        in_config.add(FIXED_SCORE)
    state = {name: value for name, value in state.items() if name not in in_config}
    with torch.device("meta"):
        model = build_backbone(config)
    assert isinstance(model, FluxAudio)
    # The published model does not standardize scores.
    state = {"score_mean": torch.tensor(0.0), "score_std": torch.tensor(1.0)} | state
    expected = {name: tuple(value.shape) for name, value in _published_weights(model).items()}
    state = {name: _with_leading_axes(value, expected.get(name)) for name, value in state.items()}
    require(state, DESCRIPTIONS[config.kind], expected)
    converted = {
        ours: _to_our_layout(ours, [state[name] for name in published_names(ours)], config).float()
        for ours in model.state_dict()
    }
    model.load_state_dict(converted, assign=True)
    return model.eval()


def to_published(model: FluxAudio) -> dict[str, Tensor]:
    """The model's state dict in published names and layouts, with what our config says of its score beyond sizes."""
    state, config = _published_weights(model), model.config
    if config.score_frequencies == TIME:
        state[FREQUENCIES] = time_frequencies(config.score_features)
    elif not isinstance(config.score_frequencies, str):
        state[FREQUENCIES] = torch.tensor(config.score_frequencies)
    if not isinstance(config.score_null, str):
        state[SENTINEL] = torch.tensor(float(config.score_null))
    if isinstance(config, MeanAudioConfig) and config.fixed_score is not None:
        state[FIXED_SCORE] = torch.tensor(float(config.fixed_score))
    return state


def _published_weights(model: FluxAudio) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for ours, value in model.state_dict().items():
        names = published_names(ours)
        state.update(zip(names, _to_published_layout(ours, value, model.config), strict=True))
    return state


def infer_config(
    state: Mapping[str, Tensor], injection: str = "none", mapping: NameMap | None = None
) -> FluxAudioConfig:
    """The sizes of a bare published state dict, MeanAudio's where it has a second time; ModelError where it is of
    neither."""
    kind = MEANAUDIO if any(name.startswith("r_embed.") for name in state) else FLUXAUDIO
    query_norm = "joint_blocks.0.latent_block.attn.q_norm.weight"
    ranks = {"audio_input_proj.0.weight": 3, TOKENS: 2, POOLED: 1, query_norm: 1}
    require_sizes(state, DESCRIPTIONS[kind], ranks)
    hidden, latent_dim, _ = state["audio_input_proj.0.weight"].shape
    text_length, text_dim = state[TOKENS].shape
    (text_c_dim,), (head_dim,) = state[POOLED].shape, state[query_norm].shape
    joint, fused = (len({n.split(".")[1] for n in state if n.startswith(f"{k}_blocks.")}) for k in ("joint", "fused"))
    sizes: dict[str, Any] = {} if injection == "none" else _score_config(state, hidden, mapping or NameMap())
    if kind == MEANAUDIO and FIXED_SCORE in state:
        sizes["fixed_score"] = _number(state, FIXED_SCORE)
    return (MeanAudioConfig if kind == MEANAUDIO else FluxAudioConfig)(
        latent_dim=latent_dim,
        text_dim=text_dim,
        text_c_dim=text_c_dim,
        hidden_dim=hidden,
        depth=joint + fused,
        fused_depth=fused,
        num_heads=hidden // head_dim,
        text_length=text_length,
        injection=injection,
        **sizes,
    )


def _score_config(state: Mapping[str, Tensor], hidden: int, mapping: NameMap) -> dict[str, Any]:
    """What the weights, or else the map, say of the score embedder."""
    config: dict[str, Any] = {}
    if EMBEDDER in state:
        require_sizes(state, DESCRIPTIONS[FLUXAUDIO], {EMBEDDER: 2})
        config["score_hidden"], config["score_features"] = state[EMBEDDER].shape
    if "score.tokens.bias" in state:
        config["score_tokens"] = state["score.tokens.bias"].numel() // hidden
    frequencies = _frequencies(state, mapping)
    if frequencies is not None:
        config["score_frequencies"] = frequencies
    elif EMBEDDER in mapping.names.values():
        raise ModelError(
            "the name map must say the frequencies of the score's features, which are not learned: give the file's "
            f'tensor the name {FREQUENCIES} (radians per unit of the score) or {CYCLES}, or set "score_frequencies" to '
            f"{TIME} (those of the time embedding), {SPACED} (ours) or a list"
        )
    null = _number(state, SENTINEL) if SENTINEL in state else mapping.null
    if null is None and NULL in state:
        null = SCALAR if state[NULL].numel() == 1 < hidden else VECTOR
    return config if null is None else config | {"score_null": null}


def _frequencies(state: Mapping[str, Tensor], mapping: NameMap) -> str | tuple[float, ...] | None:
    """In radians per unit of the score. ModelError where the map says others than the file, or there are two."""
    held = [state[name].flatten().double() for name in (FREQUENCIES, CYCLES) if name in state]
    if not held:
        return mapping.frequencies
    values = held[0] if FREQUENCIES in state else 2 * math.pi * held[0]
    features = 2 * len(values)
    said = mapping.frequencies
    if said == SPACED:
        expected = spaced_frequencies(features)
    elif isinstance(said, tuple):
        expected = torch.tensor(said)
    else:
        expected = time_frequencies(features)
    agree = len(held) == 1 and _close(values, expected, state[FREQUENCIES if FREQUENCIES in state else CYCLES])
    if len(held) > 1 or (said is not None and not agree):
        raise ModelError("the frequencies of the score's features are given twice and differ; keep one of them")
    return TIME if agree and said in (None, TIME) else tuple(values.float().tolist())


def _close(values: Tensor, expected: Tensor, held: Tensor) -> bool:
    """Whether frequencies are the same but for the rounding of the tensor that was held."""
    rounding = 8 * torch.finfo(held.dtype).eps if held.is_floating_point() else 0.0
    return values.shape == expected.shape and torch.allclose(
        values.double(), expected.double(), rtol=max(rounding, 1e-5), atol=0
    )


def _number(state: Mapping[str, Tensor], name: str) -> float:
    if state[name].numel() != 1:
        raise ModelError(f"{name} must be one number, not {tuple(state[name].shape)}")
    return float(state[name])


def _renamed(bare: Mapping[str, Tensor], mapping: NameMap) -> dict[str, Tensor]:
    """The tensors by the names that the map gives, without those that it drops and those that no model needs.

    ModelError where the map names a tensor that is not there, or a place that another has.
    """
    named = {*mapping.names, *mapping.dropped}
    if absent := sorted(named - bare.keys()):
        raise ModelError(f"the name map has {', '.join(absent)}, which the file does not hold")
    kept = [name for name in bare if name in mapping.names or not (_is_extra(name) or name in mapping.dropped)]
    state = {mapping.names.get(name, name): bare[name] for name in kept}
    if len(state) < len(kept):
        taken = sorted(ours for name, ours in mapping.names.items() if name != ours and ours in kept)
        raise ModelError(f"the name map gives the place of {', '.join(taken)}, which the file holds itself")
    return state


def _check_times(state: dict[str, Tensor]) -> None:
    """Take out the frequencies of times; ModelError where they are others than the network computes with."""
    for name in [f"{start}freqs" for start in TIMES if f"{start}freqs" in state]:
        held = state.pop(name)
        if not _close(held.flatten(), time_frequencies(TimeEmbedding.features), held):
            raise ModelError(f"{name} holds other frequencies than 10000^(-2i/{TimeEmbedding.features}), FluxAudio's")


def _with_empty_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the encoding of the empty string as [L, text_dim] and [text_c_dim]; a pooled one that is missing is the
    mean of the tokens, as in the published loader, where the network's pooled text is that wide."""
    state = dict(state)
    for name, rank in ((TOKENS, 2), (POOLED, 1)):
        while name in state and state[name].ndim > rank and state[name].shape[0] == 1:
            state[name] = state[name][0]
    width = state["text_cond_proj.0.weight"].shape[-1:] if "text_cond_proj.0.weight" in state else None
    if POOLED not in state and TOKENS in state and state[TOKENS].shape[-1:] == width:
        state[POOLED] = state[TOKENS].float().mean(0)
    return state


def _with_leading_axes(value: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """The tensor in `shape` where that differs in leading axes of size one alone."""
    if shape is None or _without_leading_axes(tuple(value.shape)) != _without_leading_axes(shape):
        return value
    return value.reshape(shape)


def _without_leading_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))


def _is_extra(name: str) -> bool:
    return name in EXTRAS or name.endswith("._extra_state")


def _to_our_layout(name: str, tensors: list[Tensor], config: FluxAudioConfig) -> Tensor:
    value = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    if ".qkv." in name:  # rows (head, channel, 3) -> (3, head, channel)
        return value.unflatten(0, (config.num_heads, config.head_dim, 3)).movedim(2, 0).flatten(0, 2)
    return value.flatten() if name in ("latent_mean", "latent_std") else value


def _to_published_layout(name: str, value: Tensor, config: FluxAudioConfig) -> tuple[Tensor, ...]:
    if ".qkv." in name:
        return (value.unflatten(0, (3, config.num_heads, config.head_dim)).movedim(0, 2).flatten(0, 2),)
    if ".gate_up." in name:
        return value.chunk(2)
    return (value[None, None],) if name in ("latent_mean", "latent_std") else (value,)

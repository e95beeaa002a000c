"""Published checkpoints of FluxAudio and MeanAudio: their names and layouts to ours, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from plaudit.backbone.base import build_backbone
from plaudit.backbone.config import FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.meanaudio import MeanAudioConfig
from plaudit.errors import ModelError
from plaudit.published import renamed, require, require_sizes, unwrap

DESCRIPTION = "FluxAudio (a name map may help)"
EXTRAS = ("t_embed.freqs", "r_embed.freqs", "latent_rot", "text_rot", "_extra_state")
"""Entries in some released files that no model needs."""

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


def from_published(
    checkpoint: Mapping[str, Any], injection: str = "none", names: Mapping[str, str] | None = None
) -> FluxAudio:
    """The model in a published checkpoint (the content of its file), with its sizes inferred from the weights.

    names: published name -> ours, for weights whose published names are not known here, such as a score embedder's.
    ModelError lists the tensors that are missing, unknown or of a wrong shape.
    """
    bare = {name: value for name, value in unwrap(checkpoint).items() if not _is_extra(name)}
    state = {(names or {}).get(name, name): value for name, value in bare.items()}
    config = infer_config(state, injection)
    with torch.device("meta"):
        model = build_backbone(config)
    assert isinstance(model, FluxAudio)
    # The published model does not standardize scores.
    state = {"score_mean": torch.tensor(0.0), "score_std": torch.tensor(1.0)} | state
    require(state, DESCRIPTION, {name: tuple(value.shape) for name, value in to_published(model).items()})
    converted = {
        ours: _to_our_layout(ours, [state[name] for name in published_names(ours)], config).float()
        for ours in model.state_dict()
    }
    model.load_state_dict(converted, assign=True)
    return model.eval()


def to_published(model: FluxAudio) -> dict[str, Tensor]:
    """The model's state dict in published names and layouts."""
    state: dict[str, Tensor] = {}
    for ours, value in model.state_dict().items():
        names = published_names(ours)
        state.update(zip(names, _to_published_layout(ours, value, model.config), strict=True))
    return state


def infer_config(state: Mapping[str, Tensor], injection: str = "none") -> FluxAudioConfig:
    """The sizes of a bare published state dict, MeanAudio's where it has a second time; ModelError where it is of
    neither."""
    query_norm = "joint_blocks.0.latent_block.attn.q_norm.weight"
    ranks = {"audio_input_proj.0.weight": 3, "empty_string_feat": 2, "empty_string_feat_c": 1, query_norm: 1}
    require_sizes(state, DESCRIPTION, ranks)
    hidden, latent_dim, _ = state["audio_input_proj.0.weight"].shape
    text_length, text_dim = state["empty_string_feat"].shape
    (text_c_dim,), (head_dim,) = state["empty_string_feat_c"].shape, state[query_norm].shape
    joint, fused = (len({n.split(".")[1] for n in state if n.startswith(f"{k}_blocks.")}) for k in ("joint", "fused"))
    kind = MeanAudioConfig if any(name.startswith("r_embed.") for name in state) else FluxAudioConfig
    return kind(
        latent_dim=latent_dim,
        text_dim=text_dim,
        text_c_dim=text_c_dim,
        hidden_dim=hidden,
        depth=joint + fused,
        fused_depth=fused,
        num_heads=hidden // head_dim,
        text_length=text_length,
        injection=injection,
    )


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

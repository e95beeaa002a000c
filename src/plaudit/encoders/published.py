"""Published CLAP and MERT checkpoints: their names and layouts to those of transformers, and their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig, HubertConfig, HubertModel

from plaudit.encoders.laion_clap import LaionCLAP
from plaudit.encoders.mert import MERT, SAMPLE_RATE
from plaudit.encoders.pretrained import Tokenizer, assembled, check_texts_differ, load_tokenizer, save_tokenizer
from plaudit.errors import ModelError
from plaudit.published import renamed, require, require_sizes, unwrap
from plaudit.storage import load_tensors, read_json, save_tensors, write_json

CLAP_DESCRIPTION, MERT_DESCRIPTION = "LAION's CLAP without fusion", "MERT (a HuBERT)"

TO_PUBLISHED = (
    (r"^text_model\.", "text_branch."),
    (r"^audio_model\.audio_encoder\.", "audio_branch."),
    (r"\.batch_norm\.", ".bn0."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.attention\.self\.(?:query|key|value)\.", r"\1.attn.qkv."),
    (r"(blocks\.\d+)\.attention\.self\.", r"\1.attn."),
    (r"_projection\.linear1\.", "_projection.0."),
    (r"_projection\.linear2\.", "_projection.2."),
)
"""Transformers' names to LAION's, applied in order; queries, keys and values lie stacked in one tensor."""

UNUSED = re.compile(
    r"logit_scale_[at]$|(text|audio)_transform\.|audio_branch\.(tscam_conv|head|spectrogram_extractor|logmel_extractor)\."
    r"|.*\.(attn_mask|relative_position_index|position_ids|token_type_ids|num_batches_tracked)$"
)
"""Entries, in either naming, that embeddings do not need or that are built rather than learnt."""


MERT_WEIGHT_NORM = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
"""The older spelling of weight norm to the newer, which HubertModel has."""

MASK = "masked_spec_embed"
"""What MERT's training puts in the place of masked frames; listening needs none."""


def clap_from_published(name: str, checkpoint: Mapping[str, Any], tokenizer: Tokenizer) -> LaionCLAP:
    """CLAP called `name` from the content of one of LAION's files and RoBERTa's tokenizer, ready to use.

    ModelError where the weights do not fit, or where unrelated texts come out nearly the same.
    """
    clap = LaionCLAP(name, clap_model_from_published(checkpoint), tokenizer)
    check_texts_differ(clap)
    return clap


def clap_model_from_published(checkpoint: Mapping[str, Any]) -> ClapModel:
    """The two towers in the content of one of LAION's files; their sizes are read from the weights.

    ModelError lists, with shapes, what is missing, unknown or does not fit.
    """
    state = {name: value for name, value in unwrap(checkpoint).items() if not UNUSED.match(name)}
    try:
        config = _clap_config(state)
        with torch.device("meta"):
            own = ClapModel(config).state_dict()
    except (ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"the checkpoint does not fit {CLAP_DESCRIPTION}: its sizes contradict each other ({error})"
        ) from None
    own = {name: value for name, value in own.items() if not UNUSED.match(name)}
    require(
        state,
        CLAP_DESCRIPTION,
        {renamed(name, TO_PUBLISHED): _published_shape(name, value) for name, value in own.items()},
    )
    converted = {name: _part(name, state[renamed(name, TO_PUBLISHED)]).float() for name in own}
    return assembled(ClapModel, config, converted, built=UNUSED)


def mert_from_published(
    name: str, checkpoint: Mapping[str, Any], config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> MERT:
    """MERT called `name` from the content of its weights file, its config.json and its preprocessor_config.json.

    ModelError where it is an MERT that is more than a HuBERT, or lists, with shapes, what is missing, unknown or does
    not fit.
    """
    if config.get("model_type") not in ("mert_model", "hubert"):
        raise ModelError(f"this configuration is of {config.get('model_type')!r}, not of an MERT")
    for key, what in (("feature_extractor_cqt", "a constant-Q input"), ("deepnorm", "DeepNorm")):
        if config.get(key):
            raise ModelError(f"this MERT has {what} ({key}), which is not known here; take MERT-v1-330M")
    if (rate := preprocessor.get("sampling_rate")) != SAMPLE_RATE:
        raise ModelError(f"this MERT hears {rate} Hz, not {SAMPLE_RATE}; take its preprocessor_config.json")
    known = HubertConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    sizes = HubertConfig.from_dict({key: config[key] for key in config.keys() & known})
    with torch.device("meta"):
        own = HubertModel(sizes).state_dict()
    state = {renamed(n, MERT_WEIGHT_NORM): value.float() for n, value in unwrap(checkpoint).items()}
    if MASK in own:
        state.setdefault(MASK, torch.zeros(own[MASK].shape))
    else:
        state.pop(MASK, None)
    require(state, MERT_DESCRIPTION, {n: tuple(value.shape) for n, value in own.items()})
    return MERT(name, assembled(HubertModel, sizes, state), bool(preprocessor.get("do_normalize", True)))


def _clap_config(state: Mapping[str, Tensor]) -> ClapConfig:
    patches, words = "audio_branch.patch_embed.proj.weight", "text_branch.embeddings.word_embeddings.weight"
    positions, widening = (
        "text_branch.embeddings.position_embeddings.weight",
        "text_branch.encoder.layer.0.intermediate.dense.weight",
    )
    bands, projection = "audio_branch.bn0.weight", "text_projection.0.weight"
    bias_table = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    stages = max(1, _count(state, r"audio_branch\.layers\.(\d+)\."))
    ranks = {patches: 4, words: 2, positions: 2, widening: 2, bands: 1, projection: 2}
    require_sizes(state, CLAP_DESCRIPTION, ranks | {bias_table.format(stage): 2 for stage in range(stages)})
    width, text_width = state[patches].shape[0], state[words].shape[1]
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=width,
        hidden_size=width << (stages - 1),
        depths=[_count(state, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        num_attention_heads=[state[bias_table.format(stage)].shape[1] for stage in range(stages)],
        num_hidden_layers=stages,
        num_mel_bins=state[bands].shape[0],
        projection_dim=state[projection].shape[0],
    )
    text = ClapTextConfig(
        vocab_size=state[words].shape[0],
        hidden_size=text_width,
        num_hidden_layers=_count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        num_attention_heads=text_width // 64,  # RoBERTa's heads, whatever its size
        intermediate_size=state[widening].shape[0],
        max_position_embeddings=state[positions].shape[0],
        layer_norm_eps=1e-5,
        projection_dim=state[projection].shape[0],
    )
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=state[projection].shape[0])


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where `pattern` has its group."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _published_shape(name: str, value: Tensor) -> tuple[int, ...]:
    stacked = ".attn.qkv." in renamed(name, TO_PUBLISHED)
    return (3 * value.shape[0], *value.shape[1:]) if stacked else tuple(value.shape)


def _part(name: str, published: Tensor) -> Tensor:
    """The rows of a published tensor that are the one called `name` in transformers."""
    if ".attn.qkv." not in renamed(name, TO_PUBLISHED):
        return published
    query, key, value = published.chunk(3)
    return query if ".query." in name else key if ".key." in name else value


CLAP_KIND, MERT_KIND = "laion-clap", "mert"


def save_clap(
    folder: Path, name: str, checkpoint: Mapping[str, Any], tokenizer: Tokenizer, facts: Mapping[str, Any]
) -> None:
    """Write the folder of the CLAP in the content of one of LAION's files, once it is seen to be sound.

    `facts` (licence, how it was made) are kept in config.json.
    """
    state = unwrap(checkpoint)
    clap_from_published(name, state, tokenizer)
    save_tokenizer(folder, tokenizer)
    save_tensors(folder / "model.safetensors", state)
    write_json(folder / "config.json", {"kind": CLAP_KIND, "name": name, **facts})


def load_clap(folder: Path) -> LaionCLAP:
    """CLAP from its folder, ready to use; ModelError where a file is damaged or it hardly tells texts apart."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise ModelError(f"{folder / 'config.json'} does not describe a CLAP; check the folder name")
    return clap_from_published(config["name"], load_tensors(folder / "model.safetensors"), load_tokenizer(folder))


def save_mert(
    folder: Path,
    name: str,
    checkpoint: Mapping[str, Any],
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write the folder of the MERT in the contents of its three files, once it is seen to be sound."""
    mert_from_published(name, checkpoint, config, preprocessor)
    save_tensors(folder / "model.safetensors", unwrap(checkpoint))
    described = {"mert": dict(config), "preprocessor": dict(preprocessor)}
    write_json(folder / "config.json", {"kind": MERT_KIND, "name": name, **described, **facts})


def load_mert(folder: Path) -> MERT:
    """MERT from its folder, ready to use; ModelError where its files are damaged or of something else."""
    config = read_json(folder / "config.json")
    try:
        name, described, preprocessor = config["name"], config["mert"], config["preprocessor"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a MERT ({error})") from None
    return mert_from_published(name, load_tensors(folder / "model.safetensors"), described, preprocessor)

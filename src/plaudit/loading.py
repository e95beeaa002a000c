"""Models by name: text-to-music models, and the registries of codecs, encoders and rewards."""

from __future__ import annotations

import os
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch

from plaudit.backbone.base import Backbone, build_backbone
from plaudit.backbone.config import BackboneConfig
from plaudit.devices import placed, resolve_device
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.models.releases import FETCHED_ONLY, RELEASES
from plaudit.places import SHIPPED_MODELS, SHIPPED_REWARDS, is_model_folder, user_model
from plaudit.registry import Registry
from plaudit.reward.clap_cosine import read_clap_cosine
from plaudit.reward.tunejury import TuneJury, read_tunejury
from plaudit.reward.weighted_sum import read_weighted_sum
from plaudit.storage import content_digest, digest_of, fill_module, load_tensors
from plaudit.types import AudioEmbedder, Codec, Embedder, Reward, TextEncoder

Part = TypeVar("Part")


def _explain_missing(name: str) -> str | None:
    """An explanation for a missing model, for names with a known reason."""
    if name in RELEASES and RELEASES[name].kind == FETCHED_ONLY:
        return f"{name} is a release of files, not a model; plaudit models list names the others"
    if name in RELEASES:
        return f"model {name!r} is not here yet; fetch it with: plaudit models fetch {name}"
    if os.path.isfile(Path(name) / "recipe.yaml"):
        stages = sorted(path.parent.name for path in Path(name).glob("*/model.safetensors"))
        return f"{name} is a run, not a model; name one of its models: {', '.join(f'{name}/{s}' for s in stages)}"
    if os.path.isdir(name):
        return f"{name} has no config.json, so it is not a model folder; check the path"
    return None


CALLED: dict[str, Any] = {"call": True, "explain": _explain_missing}

CODECS: Registry[Codec] = Registry(
    "codec",
    "plaudit.codecs",
    {"synthetic": "plaudit.synthetic.codec:load_synthetic_codec"},
    folder_kinds={"mel-codec": "plaudit.codec.mel_codec:load_mel_codec"},
    requires=("name", "sample_rate", "hop", "latent_dim", "encode", "decode"),
    weights={"synthetic": ("codec",)},
    **CALLED,
)
CLAPS: Registry[Embedder] = Registry(
    "CLAP",
    "plaudit.claps",
    {"synthetic": "plaudit.synthetic.clap:load_synthetic_clap"},
    folder_kinds={"laion-clap": "plaudit.encoders.laion_clap:load_clap"},
    requires=("name", "sample_rate", "dim", "audio", "text"),
    weights={"synthetic": ("clap",)},
    **CALLED,
)
TEXT_ENCODERS: Registry[TextEncoder] = Registry(
    "text encoder",
    "plaudit.text_encoders",
    {"synthetic": "plaudit.synthetic.text:load_synthetic_text_encoder"},
    folder_kinds={"t5-clap": "plaudit.encoders.t5_clap:load_t5_clap"},
    requires=("name", "length", "token_dim", "pooled_dim", "encode"),
    weights={"synthetic": ("text", "clap")},
    references={"clap": CLAPS},
    **CALLED,
)
AUDIO_ENCODERS: Registry[AudioEmbedder] = Registry(
    "audio encoder",
    "plaudit.audio_encoders",
    {"statistics": "plaudit.synthetic.statistics:load_statistics"},
    folder_kinds={"mert": "plaudit.encoders.mert:load_mert"},
    requires=("name", "sample_rate", "dim", "audio"),
    weights={"statistics": ("statistics",)},
    include=(CLAPS,),
    **CALLED,
)
"""Every CLAP is an audio encoder too."""

REWARDS: Registry[Reward] = Registry(
    "reward",
    "plaudit.rewards",
    dict(SHIPPED_REWARDS),
    folder_kinds={
        "tunejury": lambda folder: read_tunejury(folder, CLAPS.load, AUDIO_ENCODERS.load),
        "clap": lambda folder: read_clap_cosine(folder, CLAPS.load),
        "sum": lambda folder: read_weighted_sum(folder, REWARDS.load),
    },
    requires=("score",),
    references={"clap": CLAPS, "encoders.clap": CLAPS, "encoders.audio": AUDIO_ENCODERS},
    **CALLED,
)
"""A reward predicts what people prefer: score(waves, rate, prompts), see plaudit.types.Reward. Code that is named by
entry point or as FILE.py:NAME is called without arguments and returns a reward."""

SHIPPED_LICENCES = {"synthetic": "Apache-2.0", "statistics": "Apache-2.0"}
"""Licences of the shipped models, by name."""

MODELS = dict(SHIPPED_MODELS)
"""Folders of the shipped text-to-music models."""


def load(name: str, device: str | torch.device = "auto") -> TextToMusic:
    """A ready text-to-music model from a shipped model's name or a model folder, on `device`.

    Raises ModelError where there is no such model or device, or its parts don't fit.
    """
    folder, where = model_folder(name, MODELS), resolve_device(device)
    config = read_model_config(folder)
    codec, text = load_part(CODECS, config.codec, where), load_part(TEXT_ENCODERS, config.text_encoder, where)
    return TextToMusic(load_backbone(folder, config.backbone).to(where), codec, text, config)


def load_part(registry: Registry[Part], name: str, device: str | torch.device) -> Part:
    """The codec, encoder or reward called `name` in its registry, on `device`."""
    where = resolve_device(device)  # an unknown device is an error before anything is read
    return placed(registry.load(name), where)


def load_backbone(folder: Path, config: BackboneConfig) -> Backbone:
    """The network of a model folder, in evaluation mode."""
    with torch.device("meta"):
        backbone = build_backbone(config)
    fill_module(backbone, load_tensors(folder / "model.safetensors"), folder)
    return backbone.eval()


def load_reward(name: str, device: str | torch.device = "auto") -> Reward:
    """The reward called `name` in REWARDS: built in, installed, FILE.py:NAME, package.module:NAME or a model folder."""
    return load_part(REWARDS, name, device)


def load_tunejury(name: str, device: str | torch.device = "auto") -> TuneJury:
    """A reward of kind tunejury, which has features and a gradient; ModelError where it is of another kind."""
    reward = load_reward(name, device)
    if not isinstance(reward, TuneJury):
        raise ModelError(f"{name} is not a TuneJury reward; name one of kind tunejury")
    return reward


def model_folder(name: str, shipped: dict[str, Path]) -> Path:
    """The folder of a shipped model, at a path, or of a model fetched or imported under that name."""
    return shipped[name] if name in shipped else find_folder(name, shipped)


def find_folder(name: str, names: Collection[str]) -> Path:
    """The folder at a path, or of a model fetched or imported under that name; ModelError naming `names` otherwise."""
    folder = Path(name) if is_model_folder(Path(name)) else user_model(name)
    if folder is not None:
        return folder
    near = get_close_matches(name, [*names, *RELEASES], 1)
    hint = f"did you mean {near[0]!r}? Else " if near else ""
    raise ModelError(
        _explain_missing(name)
        or f"no model {name!r}: {hint}give a model folder or one of {', '.join(sorted(names))}; released models "
        f"(plaudit models list) come by plaudit models fetch NAME"
    )


def start_digest(name: str | None) -> str:
    """The digest of the model that training starts from; "none" where there is none."""
    try:
        return "none" if name is None else model_digest(model_folder(name, MODELS))
    except ModelError:
        return "none"


def model_digest(folder: Path) -> str:
    """A digest of a text-to-music model: its weights and configuration, its codec and its text encoder."""
    config = read_model_config(folder)
    files = [folder / name for name in ("model.safetensors", "config.json")]
    parts = [content_digest(path) for path in files if path.exists()]
    parts += [CODECS.identity(config.codec), TEXT_ENCODERS.identity(config.text_encoder)]
    return digest_of(*parts)[:16]

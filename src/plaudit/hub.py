"""Models by name: `plaudit.load` for text-to-music models, and the frozen models that stand around them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plaudit.assets import EMBEDDED, fill, load_tensors
from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.codec.embedded import load_embedded_codec
from plaudit.encoders.embedded_clap import load_embedded_clap
from plaudit.encoders.embedded_text import load_embedded_text_encoder
from plaudit.encoders.statistics import load_statistics
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.reward.scorer import TuneJury, load_reward
from plaudit.types import AudioEmbedder, Codec, Embedder, TextEncoder

CODECS: dict[str, Callable[[], Codec]] = {"embedded": load_embedded_codec}
TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {"embedded": load_embedded_text_encoder}
CLAPS: dict[str, Callable[[], Embedder]] = {"embedded": load_embedded_clap}
AUDIO_EMBEDDERS: dict[str, Callable[[], AudioEmbedder]] = {"statistics": load_statistics}
MODELS = {"embedded": EMBEDDED / "model"}
REWARDS = {"embedded": EMBEDDED / "reward"}


def load(name: str, device: str = "auto") -> TextToMusic:
    """A ready text-to-music model from a known name or a model folder; its network is on `device`.

    Raises ModelError where there is no such model or device, or its parts don't fit.
    """
    folder = model_folder(name, MODELS)
    config = read_model_config(folder)
    backbone = load_backbone(folder, config.backbone).to(resolve_device(device))
    return TextToMusic(backbone, build(CODECS, config.codec), build(TEXT_ENCODERS, config.text_encoder), config)


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, then Apple's MPS, then the CPU."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        here = ", ".join(kind for kind, found in available.items() if found)
        raise ModelError(f"no device {name!r} here; use auto or one of {here}")
    return torch.device(name)


def load_backbone(folder: Path, config: BackboneConfig) -> FluxAudio:
    """The network of a model folder, in evaluation mode."""
    with torch.device("meta"):
        backbone = FluxAudio(config)
    backbone.to_empty(device="cpu")
    fill(backbone, load_tensors(folder / "model.safetensors"), folder)
    return backbone.eval()


def load_reward_model(name: str) -> TuneJury:
    """A reward from a known name or a reward folder, with the encoders it was trained on."""
    return load_reward(model_folder(name, REWARDS), lambda n: build(CLAPS, n), lambda n: build(AUDIO_EMBEDDERS, n))


def model_folder(name: str, known: dict[str, Path]) -> Path:
    """The folder of a known name, or `name` itself where it is a folder with a config.json."""
    if name in known:
        return known[name]
    if (Path(name) / "config.json").is_file():
        return Path(name)
    raise ModelError(f"no model {name!r}: give a model folder or one of {', '.join(sorted(known))}")


def build(registry: dict[str, Callable[[], Any]], name: str) -> Any:
    """The frozen model called `name` in one of the registries above."""
    if name not in registry:
        raise ModelError(f"no such model {name!r}; known here are {', '.join(sorted(registry))}")
    return registry[name]()


def weights_digest(*names: str) -> dict[str, str]:
    """A hash of each embedded weights folder, so that what was made with older weights is known to be stale."""
    found = {}
    for name in names:
        path = EMBEDDED / name / "model.safetensors"
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "none"
    return found

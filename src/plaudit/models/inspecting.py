"""What a model folder is: its configuration, size, licence and where it comes from, without loading it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from plaudit.assets import read_json
from plaudit.errors import ModelError

TEXT_TO_MUSIC = "text-to-music"


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Kind, parameters, bytes, licence, provenance and configuration of a model folder; ModelError where damaged."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("made", {}), dict):
        raise ModelError(f"{folder / 'config.json'} does not describe a model; check the folder name")
    if not isinstance(config.get("kind", ""), str):
        raise ModelError(f"{folder / 'config.json'}: the kind of a model is a word, not {config['kind']!r}")
    weights = folder / "model.safetensors"
    rest = {key: value for key, value in config.items() if key not in ("kind", "licence", "made")}
    return {
        "folder": str(folder.resolve()),
        "kind": config.get("kind", TEXT_TO_MUSIC if "backbone" in config else "unknown"),
        "parameters": parameters(weights),
        "bytes": weights.stat().st_size,
        "licence": str(config.get("licence", "not stated")),
        "made": config.get("made", {}),
        "config": rest,
    }


def parts_of(config: dict[str, Any]) -> dict[str, str]:
    """The models that a model folder's configuration names, by what they are to it."""
    encoders = config.get("encoders")
    encoders = encoders if isinstance(encoders, dict) else {}
    named = {
        "codec": config.get("codec"),
        "text encoder": config.get("text_encoder"),
        "CLAP": encoders.get("clap", config.get("clap")),
        "listener": encoders.get("audio"),
    }
    return {what: name for what, name in named.items() if isinstance(name, str)}


def parameters(weights: Path) -> int:
    """Numbers in all tensors of a safetensors file, of which only the header is read."""
    if not weights.is_file():
        raise ModelError(f"{weights} does not exist; check the folder name")
    try:
        with safe_open(weights, "pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is damaged ({error}); make it again or restore it") from None


def flattened(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as rows, their keys joined by dots."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows

"""The folders of published encoders: the released weights as they are, made ready to use each time they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plaudit.assets import load_tensors, read_json, save_tensors, write_json
from plaudit.encoders.laion_clap import LaionCLAP
from plaudit.encoders.mert import MERT
from plaudit.encoders.published import clap_from_published, mert_from_published
from plaudit.encoders.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from plaudit.errors import ModelError
from plaudit.released import unwrap

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

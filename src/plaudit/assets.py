"""Reading and writing modules as folders of `config.json` + `model.safetensors`, and where the shipped ones lie."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plaudit.errors import ModelError

EMBEDDED = Path(__file__).parent / "weights"
"""The embedded world's weights: codec, text, clap, probes, reward, model."""

STEP = "step.json"
"""The marker in a folder that a run made (plaudit.runs)."""


def models_home() -> Path:
    """Where fetched and imported models are kept: $PLAUDIT_MODELS, or `plaudit/models` in the user's cache folder."""
    if chosen := os.environ.get("PLAUDIT_MODELS"):
        return Path(chosen).expanduser()
    return cache_home() / "models"


def cache_home() -> Path:
    """Plaudit's folder in the user's cache folder: $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "plaudit"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees all of it or nothing, whatever kills the writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; ModelError where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; check the folder name") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}); make it again or restore it") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file; one that has not changed since this process last read it is not read again."""
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of what a file says; of a `config.json` without `made`, which records where a model comes from."""
    if path.name == "config.json":
        values = read_json(path)
        if isinstance(values, dict) and "made" in values:
            plain = json.dumps({key: value for key, value in values.items() if key != "made"}, sort_keys=True)
            return hashlib.sha256(plain.encode()).hexdigest()
    return file_digest(path)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all; tensors that share memory are each written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in places else tensor
        places.add(place)
    try:
        save_file(plain, temporary, metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except SafetensorError as error:  # it passes the system's error number on in its text only
        told = re.search(r"(?:code: |os error )(\d+)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what training continues from, whole or not at all."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except RuntimeError as error:  # PyTorch's writer covers what the system said of the disk with its own words
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
        raise
    finally:
        partial.unlink(missing_ok=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors; ModelError where the file is missing, truncated or not safetensors."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the folder name")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}); make it again or restore it") from None


def save_module(folder: Path, module: nn.Module, config: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Write a module's weights and the configuration that rebuilds it; floats in `dtype` where given."""
    state = {
        name: t.to(dtype) if dtype is not None and t.is_floating_point() else t
        for name, t in module.state_dict().items()
    }
    save_tensors(folder / "model.safetensors", state)
    write_json(folder / "config.json", config)


def load_module(folder: Path, module: nn.Module) -> None:
    """Fill `module` from `folder`, in the module's own dtype; ModelError naming what is missing or unexpected."""
    fill(module, load_tensors(folder / "model.safetensors"), folder)


def fill(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put `tensors` into `module`; every name and shape must fit, or ModelError says which do not.

    A module built on the meta device takes the tensors themselves, so that weights are neither made nor copied twice.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        raise ModelError(f"{source} does not fit {type(module).__name__}: missing {missing}, unexpected {unexpected}")
    shapes = {name: (tuple(tensors[name].shape), tuple(own[name].shape)) for name in own}
    wrong = [f"{name} {theirs} for {ours}" for name, (theirs, ours) in shapes.items() if theirs != ours]
    if wrong:
        raise ModelError(f"{source} does not fit {type(module).__name__}: shapes differ: {', '.join(wrong)}")
    built_empty = any(t.is_meta for t in own.values())
    module.load_state_dict({name: t.to(own[name].dtype) for name, t in tensors.items()}, assign=built_empty)

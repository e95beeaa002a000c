"""Storage: JSON, tensors, checkpoints, model folders, whole folders, and digests of all of it."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from plaudit.errors import LISTED, ModelError
from plaudit.writing import draft_beside, hidden_beside, is_utf8, keep_mode, put_in_place, replacing, write_atomically

DIGEST = "plaudit.sha256"
"""Under this name a safetensors file's metadata holds the digest of its tensors."""

STEP, DONE = "step.json", "done.json"
"""What a run keeps about a step in the step's folder (plaudit.pipeline.run_folder)."""


def to_json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    """JSON text of `value` that any reader accepts: numbers that are not finite become null.

    Characters beyond ASCII are escaped with `ascii`, and where they could not be written as UTF-8.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=False)
    except ValueError:
        value = finite(value)
        text = json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=False)
    return text if is_utf8(text) else json.dumps(value, indent=indent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomically(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; ModelError where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; check the folder name") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ModelError(f"{path} is not valid JSON ({reason}); restore it, or write it again") from None


def differences(earlier: Mapping[str, Any], later: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Earlier and later value of every setting that two descriptions don't share, by its dotted name."""
    changed: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*later, *earlier)):
        old, new = earlier.get(name), later.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed |= differences(old, new, f"{prefix}{name}.")
        elif old != new:
            changed[prefix + name] = old, new
    return changed


class WholeFolder:
    """A folder that appears whole or not at all, and records its origin.

    origin: what its content is computed from, as JSON; the file `marker` in the folder holds it.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any] | None = None, marker: str = "origin.json") -> None:
        self.path = Path(os.path.realpath(path))
        self.origin = None if origin is None else json.loads(to_json(origin))
        self.marker = marker

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """How the existing folder's origin differs: the value there and the value here, by dotted name.

        ModelError where it records no origin.
        """
        there = read_json(self.path / self.marker)
        if not isinstance(there, dict):
            raise ModelError(f"{self.path / self.marker} is damaged; remove {self.path} to make it again")
        return differences(there, self.origin or {})

    @contextmanager
    def draft(self, resume: bool = False) -> Iterator[Path]:
        """A hidden folder to write into; at the end of the block it takes the place of what is there.

        resume: where the block fails or the process is killed, the draft stays, and is continued by the next one of the
        same origin. Else it begins empty, and several processes may each have one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path))
        with self._resumable() if resume else draft_beside(self.path) as draft:
            if self.origin is not None:
                write_json(draft / self.marker, self.origin)
            yield draft
            if resume:
                for torn in [path for path in draft.rglob(".*") if path.is_file()]:  # of a writer that was killed
                    torn.unlink()
            put_in_place(draft, self.path)

    @contextmanager
    def _resumable(self) -> Iterator[Path]:
        draft = hidden_beside(self.path, "partial")
        if draft.exists() and self.origin is not None:
            with suppress(ModelError):
                if read_json(draft / self.marker) == self.origin:
                    yield draft
                    return
            shutil.rmtree(draft)
        draft.mkdir(parents=True, exist_ok=True)
        yield draft


def digest_of(*values: Any) -> str:
    """SHA-256 of values: of bytes, if they are all, else of the values as JSON, other objects by their text."""
    if len(values) == 1 and isinstance(values[0], bytes):
        return hashlib.sha256(values[0]).hexdigest()
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def seed_of(text: str) -> int:
    """A 64-bit number that depends on a text alone: seeds and splits by name. Its bytes never change."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file; one that has not changed since this process last read it is not read again."""
    state = path.stat()
    return _read_digest(path, algorithm, state.st_size, state.st_mtime_ns)


@cache
def _read_digest(path: Path, algorithm: str, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file; of a `config.json` without its `provenance`."""
    if path.name == "config.json":
        values = read_json(path)
        if isinstance(values, dict) and "provenance" in values:
            return digest_of({key: value for key, value in values.items() if key != "provenance"})
    return file_digest(path)


def folder_digest(folder: Path) -> str:
    """A digest of a model folder: weights, configuration, tokenizer."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (STEP, DONE)]
    return digest_of(*map(content_digest, files))[:16]


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and their digest as safetensors, whole or not at all; those that share memory are each written."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in places else tensor
        places.add(place)
    with replacing(path) as partial:
        mode = partial.stat().st_mode
        try:
            save_file(plain, partial, {**(metadata or {}), DIGEST: tensors_digest(plain)})
        except SafetensorError as error:  # it passes the system's error number on in its text only
            number = re.search(r"(?:code: |os error )(\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        keep_mode(partial, mode)  # safetensors replaces the file by one that only the user can read


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of the names, types, shapes and values of tensors, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training checkpoint, whole or not at all."""
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # PyTorch's writer hides the system's error behind its own
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from None
        raise


def checkpoint_damage(path: Path) -> str | None:
    """Why a file of `save_checkpoint` is damaged, or None.

    PyTorch's files are zip archives, whose entries have checksums that PyTorch itself does not verify.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # zipfile has no common base for what damaged headers raise
        return str(error) or type(error).__name__
    return None if broken is None else f"the checksum of {broken} differs"


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors; ModelError where the file is missing, truncated, not safetensors, or not as it was written."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the folder name")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}); restore it, or write it again") from None
    if DIGEST in metadata and metadata[DIGEST] != tensors_digest(tensors):
        raise ModelError(f"{path} is damaged (its checksum differs); restore it, or write it again")
    return dequantized(tensors)


SCALE = ".int8_scale"
"""What the name of a quantized tensor's scales ends with."""


def quantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for storage at a byte each: matrices, and tensors of more dimensions, as int8 with one scale a row.

    A row is rounded to 127 steps on either side of zero, as far as its largest value; its scale is in float32. Vectors
    are in float16, and what is no floating-point number is kept. `load_tensors` gives float32 back.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            stored[name] = tensor
        elif tensor.ndim < 2:
            stored[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            stored[name] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
            stored[name + SCALE] = scale
    return stored


def dequantized(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they were given to `quantized`, but for rounding; others as they are."""
    scales = {name.removesuffix(SCALE): scale for name, scale in tensors.items() if name.endswith(SCALE)}
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name, scale in scales.items():
        whole[name] = whole[name].float() * scale.view(-1, *[1] * (whole[name].ndim - 1))
    return whole


def save_module(folder: Path, module: nn.Module, config: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Write a module's weights and the configuration that rebuilds it; floats in `dtype` where given."""
    state = {
        name: t.to(dtype) if dtype is not None and t.is_floating_point() else t
        for name, t in module.state_dict().items()
    }
    save_tensors(folder / "model.safetensors", state)
    write_json(folder / "config.json", config)


def load_module(folder: Path, module: nn.Module) -> None:
    """Fill `module` from `folder`, in the module's dtype; ModelError naming what is missing or unexpected."""
    fill_module(module, load_tensors(folder / "model.safetensors"), folder)


def fill_module(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put `tensors` into `module`; every name and shape must fit, or ModelError says which do not.

    A module built on the meta device takes the tensors themselves, so that weights are not allocated twice.
    """
    state = module.state_dict()
    missing, unexpected = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    if missing or unexpected:
        differing = f"missing {_beginning(missing)}, unexpected {_beginning(unexpected)}"
        raise ModelError(f"{source} does not fit {type(module).__name__}: {differing}")
    shapes = {name: (tuple(tensors[name].shape), tuple(state[name].shape)) for name in state}
    wrong = [f"{name} {theirs} for {ours}" for name, (theirs, ours) in shapes.items() if theirs != ours]
    if wrong:
        differing = ", ".join(_beginning(wrong))
        raise ModelError(f"{source} does not fit {type(module).__name__}: shapes differ: {differing}")
    built_empty = any(t.is_meta for t in state.values())
    module.load_state_dict({name: t.to(state[name].dtype) for name, t in tensors.items()}, assign=built_empty)


def _beginning(names: list[str]) -> list[str]:
    """The first few of many names."""
    return names if len(names) <= LISTED else [*names[:LISTED], f"and {len(names) - LISTED} more"]


def finite(value: Any) -> Any:
    """The value with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(finite(key)) if isinstance(key, float) else key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, (list, tuple)) else value

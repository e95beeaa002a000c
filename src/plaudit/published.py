"""Released weights: safe reading of their files, and errors that name mismatched tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.errors import ModelError
from plaudit.storage import file_digest, load_tensors

WRAPPERS = ("state_dict", "generator", "weights")
"""Keys under which released files keep the weights beside other things."""

PREFIXES = ("module.", "ema_model.")
"""Prefixes that training scripts leave before every name."""

LISTED = 40
"""Complaints of one kind that an error spells out; a file of another model has hundreds."""

_rebuild_scalar: Any = np.float64(0).__reduce__()[0]
_SCALAR_PARTS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_rebuild_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]
"""What NumPy's scalars are unpickled with: data only. Training scripts leave such scalars beside the weights."""


def read_released(path: Path) -> dict[str, Any]:
    """The content of a released `.safetensors`, `.pt`, `.pth` or `.bin` file, on the CPU.

    Nothing in the file is run: a pickle that needs more than tensors and plain data is refused. ModelError says so, or
    that the file is missing, truncated, or holds something other than named weights.
    """
    if path.suffix == ".safetensors":
        return dict(load_tensors(path))
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the file name")
    try:
        with torch.serialization.safe_globals(_SCALAR_PARTS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common base for what damaged files raise
        raise ModelError(_why_unreadable(path, error)) from None
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, not named weights; check the file")
    return dict(content)


def labelled_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file as releases state it, "sha256:..."."""
    return f"{algorithm}:{file_digest(path, algorithm)}"


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a released file's content by their bare names, however it is wrapped.

    Taken off are the keys in WRAPPERS and the PREFIXES; what is not a tensor is left out.
    """
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            return unwrap(checkpoint[wrapper])
    return {_bare(name): value for name, value in checkpoint.items() if isinstance(value, Tensor)}


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """`name` after every (regular expression, replacement) of `rules`, in order; from our names to published ones."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with every pair of weight norm's tensors replaced by the weight that they stand for.

    weight = magnitude * direction / ||direction||, the norm over all axes but the first (Salimans & Kingma, arXiv
    1602.07868). Both of PyTorch's spellings are read: `weight_g` and `weight_v`, and
    `parametrizations.weight.original0` and `original1`. Half of a pair is left as it is.
    """
    folded = dict(state)
    for magnitude, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        stems = [name.removesuffix(magnitude) for name in folded if name.endswith(f".{magnitude}")]
        for stem in stems:
            if stem + direction in folded:
                g, v = folded.pop(stem + magnitude).float(), folded.pop(stem + direction).float()
                folded[f"{stem}weight"] = g * v / v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
    return folded


def require(state: Mapping[str, Tensor], what: str, expected: Mapping[str, tuple[int, ...]]) -> None:
    """ModelError where `state` is not exactly the tensors of `what`, naming with shapes all that differ."""
    missing = [f"{name} {tuple(shape)}" for name, shape in expected.items() if name not in state]
    unknown = [f"{name} {tuple(value.shape)}" for name, value in state.items() if name not in expected]
    misshapen = [
        f"{name} is {tuple(value.shape)}, not {tuple(expected[name])}"
        for name, value in state.items()
        if name in expected and value.shape != expected[name]
    ]
    _complain(what, missing, unknown, misshapen)


def require_sizes(state: Mapping[str, Tensor], what: str, ranks: Mapping[str, int]) -> None:
    """ModelError where a tensor that gives the sizes of `what` is missing from `state`, empty, or of another rank."""
    missing = [f"{name} ({rank} axes)" for name, rank in ranks.items() if name not in state]
    misshapen = [
        f"{name} is {tuple(state[name].shape)}, not {rank} axes of at least 1"
        for name, rank in ranks.items()
        if name in state and (state[name].ndim != rank or state[name].numel() == 0)
    ]
    _complain(what, missing, [], misshapen, state=state)


def _complain(
    what: str, missing: list[str], unknown: list[str], misshapen: list[str], state: Mapping[str, Tensor] | None = None
) -> None:
    complaints = [
        *_first([f"missing {entry}" for entry in missing], "missing"),
        *_first([f"unknown {entry}" for entry in unknown], "unknown"),
        *_first(misshapen, "misshapen"),
    ]
    if missing and state is not None:
        complaints.append(f"it holds {', '.join(_first(list(state), 'names')) or 'no tensor'}")
    if complaints:
        raise ModelError(f"the checkpoint does not fit {what}: {'; '.join(complaints)}")


def _first(entries: list[str], kind: str) -> list[str]:
    rest = len(entries) - LISTED
    return entries if rest <= 0 else [*entries[:LISTED], f"and {rest} more {kind}"]


def _bare(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _why_unreadable(path: Path, error: Exception) -> str:
    if called := re.search(r"\bGLOBAL (\S+)", str(error)):
        return (
            f"{path} is refused: reading it would run {called[1]}, and weights need no code; "
            "get them as safetensors or from their authors"
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Weights only load failed" in reason:  # the rest of that line advises to read the file unsafely
        reason = "not PyTorch's format, or more than tensors in it"
    return f"{path} cannot be read as plain weights ({reason}); it is truncated, damaged or something else"

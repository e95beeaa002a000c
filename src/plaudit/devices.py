"""Devices: their names, models on them, batches that fit their memory, and the precision of matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import psutil
import torch
from torch import Tensor, nn

from plaudit.errors import AudioError, ModelError
from plaudit.types import Posterior, TextFeatures

Model = TypeVar("Model")
Rows = TypeVar("Rows", Tensor, list[str])
Output = TypeVar("Output", Tensor, TextFeatures, Posterior)

MEMORY_FRACTION = {"cpu": 0.25, "cuda": 0.6}
"""Of a device's total memory, what activations may use by default (ours). Total and not free memory, so that the same
machine always cuts the same batches."""

ACCELERATOR_BATCH = 64
"""Rows that fill any accelerator: more delay the first result and make nothing faster (ours)."""

SAMPLE_BYTES = 4096
"""Activations in bytes per sample of audio of a model without `sample_bytes`: five times MERT's (ours)."""

PROMPT_BYTES = 16 * 2**20
"""Activations per prompt of a text encoder, in bytes: those of T5-large with 77 tokens (ours)."""


def resolve_device(name: str | torch.device) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, then Apple's MPS, then the CPU.

    ModelError for a device that this machine lacks.
    """
    if isinstance(name, torch.device):
        return name
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    kind, _, index = name.partition(":")
    if not available.get(kind, False) or (index and not index.isdecimal()):
        here = ", ".join(kind for kind, present in available.items() if present)
        raise ModelError(f"no device {name!r} here; use auto or one of {here}")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ModelError(f"no device {name!r} here; there are {torch.cuda.device_count()}, counted from cuda:0")
    return torch.device(name)


def reduced_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """In this block of the current thread, networks multiply in bfloat16; not enabled: in the precision of their input,
    in a block that is within such a one."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def placed(model: Model, device: torch.device) -> Model:
    """`model` on `device`, where it is a module or has a method `to`; any other stays as it is."""
    move = getattr(model, "to", None)
    moved = move(device) if callable(move) else None
    return model if moved is None else cast(Model, moved)


def device_of(model: object) -> torch.device:
    """Where a model computes: its `device`, or that of its weights; the CPU for one without either."""
    device = getattr(model, "device", None)
    if isinstance(device, torch.device):
        return device
    if isinstance(model, nn.Module):
        for tensors in (model.parameters(), model.buffers()):
            for tensor in tensors:
                return tensor.device
    return torch.device("cpu")


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU through pinned memory, without waiting for the copy."""
    if device.type != "cuda" or tensor.device.type != "cpu" or tensor.requires_grad:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def activation_memory(device: torch.device) -> float:
    """Bytes that activations on `device` may take by default."""
    if device.type == "cuda":
        return MEMORY_FRACTION["cuda"] * int(torch.cuda.get_device_properties(device).total_memory)
    return MEMORY_FRACTION["cpu"] * int(psutil.virtual_memory().total)


def rows_at_once(model: object, on_cpu: int) -> int:
    """Rows to collect before `model` computes them together: `on_cpu` on a CPU, enough to fill an accelerator."""
    return on_cpu if device_of(model).type == "cpu" else max(on_cpu, ACCELERATOR_BATCH)


def batched(model: object, function: Callable[[Rows], Output], rows: Rows) -> Output:
    """function(rows) on the CPU, computed by `model` on its device in batches that fit the memory there.

    rows: audio or latents [B, ...], which function gets on the model's device, or prompts. Batches are cut by the
    model's `sample_bytes`, the memory of activations per sample of audio, where it has them; a batch that runs out of
    memory all the same is halved, and so are later ones. On a CPU all rows are one batch. Gradients pass. AudioError
    where a single row does not fit.
    """
    device, results = device_of(model), list[Output]()
    row = _row_bytes(model, rows)
    start, size = 0, _rows_that_fit(model, device, row, len(rows))
    while start < len(rows) or not results:
        batch = rows[start : start + size]
        try:
            results.append(function(on_device(batch, device) if isinstance(batch, Tensor) else batch))
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        else:
            start += size
            continue
        if len(batch) < 2:
            raise AudioError(f"one clip needs more memory than {device} has left; cut it shorter or use --device cpu")
        size = len(batch) // 2
        _LIMITS[type(model), device] = row * size
        if device.type == "cuda":
            torch.cuda.empty_cache()  # outside the handler, whose traceback would hold the activations
    return _joined(results)


def _row_bytes(model: object, rows: Tensor | Sequence[str]) -> float:
    if not isinstance(rows, Tensor):
        return PROMPT_BYTES
    return max(1, rows[:1].numel()) * float(getattr(model, "sample_bytes", SAMPLE_BYTES))


_LIMITS: dict[tuple[type[Any], torch.device], float] = {}
"""Bytes of activations above which batches ran out of memory, by kind of model and device."""


def _rows_that_fit(model: object, device: torch.device, row: float, count: int) -> int:
    """How many of `count` rows of `row` bytes to compute at once."""
    if device.type == "cpu" and (type(model), device) not in _LIMITS:
        return max(1, count)
    allowed = _LIMITS.get((type(model), device)) or activation_memory(device)
    return max(1, min(count, int(allowed / row)))


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory is full; MPS and some CUDA libraries have no error class of their own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _joined(parts: list[Output]) -> Output:
    """The results of batches as one, on the CPU; they are copied together, so that no batch waits for a copy."""
    first: Any = parts[0]
    whole = torch.cat(cast(list[Tensor], parts)) if isinstance(first, Tensor) else type(first).cat(parts)
    return cast(Output, whole.to("cpu"))

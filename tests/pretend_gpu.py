"""A GPU that is not there: tensors that report "cuda" as their device, while their values are computed on the CPU.

Inside `PretendGPU`, in all threads that are started there, PyTorch says that there is CUDA, and whatever is moved to
CUDA is marked. An operation on marked and unmarked tensors raises, as PyTorch does where devices mix; so does float64
where `float64=False`, since MPS lacks it. What PyTorch computes in C++ beneath one call is not looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)

MIXED = {
    torch.Tensor.copy_,
    torch.Tensor.to,
    torch.Tensor.data.__set__,  # type: ignore[attr-defined]
    torch.Tensor.grad.__set__,  # type: ignore[attr-defined]
}
"""Functions that take tensors of several devices."""


class OnGPU(Tensor):
    """A tensor that reports the GPU as its device."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise RuntimeError("a tensor of the pretended GPU was used outside of PretendGPU")


class PretendGPU(TorchFunctionMode):
    """The context in which the GPU exists.

    memory: of the GPU in bytes. moved, pinned: how many tensors were copied to it, and through pinned memory.
    """

    def __init__(self, float64: bool = True, memory: float = 80 * 2**30) -> None:
        super().__init__()
        self.float64, self.memory, self.moved, self.pinned = float64, memory, 0, 0
        self._stack = ExitStack()

    def __enter__(self) -> PretendGPU:
        run = threading.Thread.run
        mode = self

        def run_with_gpu(thread: threading.Thread) -> None:
            TorchFunctionMode.__enter__(mode)
            try:
                run(thread)
            finally:
                TorchFunctionMode.__exit__(mode, None, None, None)

        properties = SimpleNamespace(total_memory=self.memory, name="H100")
        for place, name, value in (
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "get_device_properties", lambda device: properties),
            (torch.cuda, "synchronize", lambda: None),
            (torch.cuda, "max_memory_allocated", lambda device: 0),
            (torch.cuda, "empty_cache", lambda: None),
            (threading.Thread, "run", run_with_gpu),
        ):
            self._stack.enter_context(patch.object(place, name, value))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._call(function, tuple(args), dict(kwargs or {}))

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(isinstance(tensor, OnGPU) for tensor in tensors)
        name = getattr(function, "__name__", "")
        if function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if on_gpu else tensors[0].device
        if function == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return on_gpu
        if function is torch._has_compatible_shallow_copy_type:  # so that modules take moved weights as new parameters
            return False
        if function is torch.Tensor.pin_memory and not on_gpu:
            self.pinned += 1
            return args[0]
        if name == "_parse_to" or function is torch.device:
            return function(*args, **kwargs)
        if on_gpu:
            self._check(function, tensors)
        target = self._target(function, args, kwargs)
        if name in ("requires_grad_", "__set__"):
            return function(*args, **kwargs)
        if name == "__get__":  # of the tensor itself: a copy of it would not be a leaf
            result = function(*args, **kwargs)
            return tree_map(self._marked, result) if on_gpu else result
        result = function(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], Tensor):
            return args[0]  # changed in place
        there = on_gpu if target is None else target.type == GPU.type
        self.moved += there and not on_gpu and bool(tensors)
        return tree_map(self._marked, result) if there else result

    def _check(self, function: Callable[..., Any], tensors: list[Tensor]) -> None:
        if function in (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.pin_memory):
            raise TypeError(f"{function.__name__} of a tensor on the GPU")
        others = [tuple(tensor.shape) for tensor in tensors if tensor.ndim and not isinstance(tensor, OnGPU)]
        indexed = function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(tensors[0], OnGPU)
        if others and not indexed and function not in MIXED:  # indices may be on the CPU
            raise RuntimeError(f"{function.__name__} of tensors on the GPU with some on the CPU, of shapes {others}")

    def _target(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.device | None:
        """The device of the result, where it is not that of the arguments."""
        if function in (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item):
            return torch.device("cpu")
        device = kwargs.get("device")
        if function is torch.Tensor.copy_:
            device = GPU if isinstance(args[0], OnGPU) else "cpu"
        elif function is torch.Tensor.to and device is None:
            named = [arg for arg in args[1:] if isinstance(arg, str | torch.device)]
            others = [arg for arg in (*args[1:], kwargs.get("other")) if isinstance(arg, Tensor)]
            device = named[0] if named else None
            device = (GPU if isinstance(others[0], OnGPU) else "cpu") if others else device
        return None if device is None else torch.device(device)

    def _marked(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not self.float64 and value.dtype == torch.float64:
            raise TypeError("float64 on a device without it")
        return value.as_subclass(OnGPU)


def _on_cpu(value: Any) -> Any:
    """An argument for the CPU: plain tensors, and the CPU in place of the GPU."""
    if isinstance(value, OnGPU):
        return value.as_subclass(Tensor)
    if isinstance(value, torch.device | str) and str(value).partition(":")[0] == GPU.type:
        return torch.device("cpu")
    return value

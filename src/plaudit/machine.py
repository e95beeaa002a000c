"""The machine: its properties, speed and memory use."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from plaudit.processors import processors
from plaudit.workers import thread_count

VERSIONS = ("plaudit", "torch", "numpy", "scipy", "transformers", "safetensors")
"""Packages whose versions are recorded with results."""

PEAK_TFLOPS = {"B200": 2250, "GH200": 989, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}
"""Dense bfloat16 products in 10^12 operations a second, by a part of the device's name, as their makers state them."""


def peak_memory() -> int:
    """Peak memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory(device: torch.device) -> int:
    """Peak memory of tensors on `device` in bytes; for the CPU, of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def peak_tflops(device: torch.device) -> float | None:
    """Dense bfloat16 operations a second of `device`, in 10^12; None for a device not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    matches = [part for part in PEAK_TFLOPS if part in name]
    return float(PEAK_TFLOPS[max(matches, key=len)]) if matches else None


def environment_of(device: torch.device) -> dict[str, Any]:
    """The environment of results as plain data: machine, versions, and the process's peak memory."""
    return {"machine": {"device": str(device), **_machine(), "threads": str(thread_count())},
            "versions": _versions(), "peak_memory": peak_memory()}  # fmt: skip


@cache
def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {"processor": _processor(), "cores": str(processors()), "memory": f"{memory:.0f} GiB",
            "system": platform.platform()}  # fmt: skip


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, including its work on the GPU."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matrix_peak(dtype: torch.dtype, device: torch.device, size: int | None = None, repeats: int = 9) -> float:
    """Operations per second of the product of two square matrices, the best of `repeats`: what a network can at most
    reach. `size` is large enough to keep the device busy by default."""
    side = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))

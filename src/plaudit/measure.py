"""How times are taken: ways of doing the same in turns, medians, and what the machine's matrix products can do."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Section:
    """What one section measured.

    seconds: for each way, the median seconds of one clip. reference: the way that the others are compared with.
    facts: whatever else is worth knowing, by name.
    """

    name: str
    what: str
    seconds: dict[str, float]
    reference: str
    facts: dict[str, Any] = field(default_factory=dict)

    def ratio(self, way: str) -> float:
        """How many times faster than the reference."""
        return self.seconds[self.reference] / self.seconds[way]


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int, advance: Advance) -> dict[str, float]:
    """Median seconds of each way, run in turns `repeats` times after one untimed run: what else the machine does at
    a time disturbs all of them."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for number, (name, way) in enumerate(ways.items()):
            taken[name].append(seconds_of(way))
            advance(repeat * len(ways) + number + 1, repeats * len(ways))
    return {name: statistics.median(times) for name, times in taken.items()}


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, what it left running on a GPU included."""
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


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text() if cpu.exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "torch": torch.__version__,
    }

"""How the sections of a benchmark take times: ways of doing the same in turns, and medians."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from plaudit.machine import seconds_of
from plaudit.processors import processors
from plaudit.workers import thread_count

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


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text() if cpu.exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": model or platform.processor(),
        "cores": processors(),
        "threads": thread_count(),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "torch": torch.__version__,
    }

"""What the machine can do and what a process has used of it."""

from __future__ import annotations

import resource
import sys

import torch

PEAK_TFLOPS = {"B200": 2250, "GH200": 989, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}
"""Dense bfloat16 products in 10^12 operations a second, by a part of the device's name, as their makers state them."""


def peak_memory() -> int:
    """The most bytes that this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory(device: torch.device) -> int:
    """The most bytes of `device` that tensors have held at once; of the CPU, those of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def peak_tflops(device: torch.device) -> float | None:
    """Dense bfloat16 operations a second of `device`, in 10^12; None where it is not among those known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    matches = [part for part in PEAK_TFLOPS if part in name]
    return float(PEAK_TFLOPS[max(matches, key=len)]) if matches else None

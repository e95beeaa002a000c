"""What loading a published network costs: `python benchmarks/loading.py [preset]` prints time and memory.

A model folder with random weights is made, and loaded in new processes: seconds from the call to weights that have been
read once, and the growth of the process's largest memory, pages of the mapped file included, over the file's size.
Beside it, in the same run, stands the usual way: a network with random weights that are then overwritten.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from plaudit.backbone.config import PRESETS
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.generate.model import ModelConfig, read_model_config
from plaudit.loading import load_backbone
from plaudit.storage import load_tensors, save_module

REPEATS = 5


def make_folder(folder: Path, preset: str) -> int:
    """A model folder of random weights; the size of its weights in bytes."""
    backbone = FluxAudio(PRESETS[preset])
    config = ModelConfig(backbone.config, "codec", "text", 10.0, "none", {})
    save_module(folder, backbone, config.to_dict())
    return (folder / "model.safetensors").stat().st_size


def measure(folder: Path, way: str) -> dict[str, float]:
    """Load once in this process: seconds, and growth of its largest memory in bytes."""
    config = read_model_config(folder).backbone
    before, start = _memory("VmRSS"), time.perf_counter()
    if way == "mapped":
        backbone = load_backbone(folder, config)
    else:
        backbone = FluxAudio(config)
        backbone.load_state_dict(load_tensors(folder / "model.safetensors"))
    with torch.inference_mode():
        sum(float(parameter.sum()) for parameter in backbone.parameters())
    return {"seconds": time.perf_counter() - start, "bytes": _memory("VmHWM") - before}


def _memory(entry: str) -> int:
    """Bytes that Linux states of this process; the peak that getrusage gives is the parent's, if that was higher."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) * 1024


def main(preset: str) -> None:
    """Prints a line for each way, medians over new processes, the ways taking turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make_folder(folder, preset)
        found: dict[str, list[dict[str, float]]] = {"mapped": [], "overwritten": []}
        for _ in range(REPEATS):
            for way, results in found.items():
                command = [sys.executable, __file__, "--once", name, way]
                results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(f"{preset}: {size / 1e6:.0f} MB of weights, medians of {REPEATS} processes")
        for way, results in found.items():
            seconds = statistics.median(result["seconds"] for result in results)
            times = statistics.median(result["bytes"] for result in results) / size
            print(f"{way:12} {seconds:6.2f} s, memory {times:.2f} x the file")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3])))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "fluxaudio-s-44k")

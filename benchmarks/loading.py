"""Time and memory of loading a network of a published size."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from plaudit.backbone.config import PRESETS
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.generate.model import ModelConfig, read_model_config
from plaudit.loading import load_backbone
from plaudit.storage import load_tensors, save_module

REPEATS = 5


def make_folder(folder: Path, preset: str) -> int:
    """Write a model folder with random weights; the size of its weights in bytes."""
    backbone = FluxAudio(PRESETS[preset])
    config = ModelConfig(backbone.config, "codec", "text", 10.0, "none", {})
    save_module(folder, backbone, config.to_dict())
    return (folder / "model.safetensors").stat().st_size


def measure(folder: Path, way: str) -> dict[str, float]:
    """Load once in this process: seconds, and growth of its peak memory in bytes."""
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
    """Bytes of this process by Linux's account; getrusage gives the parent's peak where that was higher."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) * 1024


def main(preset: Annotated[str, typer.Argument()] = "fluxaudio-s-44k") -> None:
    """Seconds until weights are loaded and read once, and growth of peak memory over the file's size.

    Weights mapped from the file are compared with weights that overwrite a randomly initialized network: medians over
    new processes, in alternation.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = make_folder(folder, preset)
        runs: dict[str, list[dict[str, float]]] = {"mapped": [], "overwritten": []}
        for _ in range(REPEATS):
            for way, results in runs.items():
                command = [sys.executable, __file__, "--once", name, way]
                results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(f"{preset}: {size / 1e6:.0f} MB of weights, medians of {REPEATS} processes")
        for way, results in runs.items():
            seconds = statistics.median(result["seconds"] for result in results)
            times = statistics.median(result["bytes"] for result in results) / size
            print(f"{way:12} {seconds:6.2f} s, memory {times:.2f} x the file")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3])))
    else:
        typer.run(main)

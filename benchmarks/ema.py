"""The cost of post-hoc EMA."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from plaudit.backbone.config import PRESETS
from plaudit.backbone.ema import PostHocEMA, Snapshot, reconstruct
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.devices import resolve_device

REPEATS = 10


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, including what it started on the device."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main(preset: Annotated[str, typer.Argument()] = "fluxaudio-s-44k") -> None:
    """Time of an EMA update, beside AdamW's step over the same parameters, and size of a snapshot.

    Runs on a GPU where there is one.
    """
    device = resolve_device("auto")
    model = FluxAudio(replace(PRESETS[preset], injection="global_adaln")).to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    ema = PostHocEMA(model)
    times: dict[str, list[float]] = {"ema": [], "optimizer": []}
    for step in range(1, REPEATS + 2):
        times["optimizer"].append(seconds(optimizer.step, device))
        times["ema"].append(seconds(lambda step=step: ema.update(step), device))
    update, adam = (1000 * statistics.median(times[name][1:]) for name in ("ema", "optimizer"))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{preset} on {device}: {parameters / 1e6:.1f} M parameters, lengths {ema.sigma_rels}")
    print(f"averages in memory   {len(ema.sigma_rels) * 4 * parameters / 1e6:8,.0f} MB")
    print(f"update, both lengths {update:8.1f} ms (AdamW's step {adam:.1f} ms)")
    with tempfile.TemporaryDirectory() as name:
        snapshots, path = ema.snapshots(), Path(name) / "snapshot.safetensors"
        written = seconds(lambda: snapshots[0].save(path), device)
        size = path.stat().st_size
        print(f"snapshot             {len(snapshots) * size / 1e6:8,.0f} MB, {len(snapshots)} files of {size:,} bytes")
        print(f"                     {written:8.2f} s to write a file, beside training")
        kept = [Snapshot(step, s, Snapshot.load(path).weights) for step in range(1, 11) for s in ema.sigma_rels]
        rebuilt = seconds(lambda: reconstruct(kept, 0.08), device)
        print(f"reconstruction       {rebuilt:8.2f} s of {len(kept)} files")


if __name__ == "__main__":
    typer.run(main)

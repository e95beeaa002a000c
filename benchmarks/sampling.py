"""Sampling compared with a naive implementation and with the limits of arithmetic."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor

from benchmarks.cost.networks import network
from benchmarks.cost.timing import Section, in_turns, machine
from benchmarks.reference_training import ReferenceFluxAudio
from plaudit.backbone.compiling import CACHE
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.errors import ModelError
from plaudit.generate.sampling import Sampler, initial_noise
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from plaudit.loading import resolve_device
from plaudit.machine import matrix_peak, seconds_of
from plaudit.types import TextFeatures

GUIDANCE = 4.0
SEEDS = 100

Predict = Callable[[Tensor, TextFeatures, Tensor], Tensor]
"""Latents [B, N, C], text and times [B] -> velocity."""

Compile = Literal["no", "default", "graphs"]


def plain_network(model: FluxAudio) -> Predict:
    """The network with the benchmarks' own layers, which stay as they are, and the weights of `model`; without a score.

    ModelError for an injection that they lack.
    """
    if model.config.injection not in ("none", "global_adaln"):
        raise ModelError(f"the plain network has no injection {model.config.injection!r}; choose another model")
    device = model.latent_mean.device
    plain = ReferenceFluxAudio(model.config).to(device)
    missing = set(plain.load_state_dict(model.state_dict(), strict=False).missing_keys)
    assert all(name.startswith("score") for name in missing)

    def predict(latents: Tensor, text: TextFeatures, t: Tensor) -> Tensor:
        with torch.device(device):
            result: Tensor = plain(latents, text, t, torch.full((len(latents),), math.nan))
            return result

    return predict


def naive_latents(
    model: FluxAudio,
    predict: Predict,
    text: TextFeatures,
    negative: TextFeatures,
    noise: Tensor,
    steps: int,
    bf16: bool,
) -> Tensor:
    """Latents [B, N, C] of `model` clip by clip, with two full passes of `predict` a step."""
    latents = []
    with torch.no_grad(), torch.autocast(noise.device.type, torch.bfloat16, enabled=bf16):
        for row in range(len(noise)):
            conditions = text.rows(torch.tensor([row]))
            x = noise[row : row + 1]
            for step in range(steps):
                t = torch.full((1,), 1 - step / steps, device=noise.device)
                positive, rejected = predict(x, conditions, t).float(), predict(x, negative, t).float()
                x = x - (GUIDANCE * positive + (1 - GUIDANCE) * rejected) / steps
            latents.append(model.unstandardize(x))
    return torch.cat(latents)


def bench_sample(model: FluxAudio, frames: int, clips: int, steps: int, repeats: int, execution: Execution) -> Section:
    """Seconds per clip of `frames` latents over `clips` clips in Euler steps with guidance, and facts on them.

    Texts are random features. The naive ways sample one clip a repeat.
    """
    config, device = model.config, model.latent_mean.device
    generator = torch.Generator().manual_seed(0)
    text = TextFeatures(
        torch.randn(clips, config.text_length, config.text_dim, generator=generator),
        torch.randn(clips, config.text_c_dim, generator=generator),
    ).to(device)
    negative, predict = model.empty_text(1), plain_network(model)
    sampler = sampler_of(model, frames, steps, execution)
    warm_up = sampler.warm_up()
    batch, seeds = min(sampler.batch, clips), list(range(SEEDS, SEEDS + clips))
    noise = initial_noise(seeds, frames, config.latent_dim).to(device)

    latents: dict[str, Tensor] = {}

    def batched() -> None:
        groups = [slice(start, start + batch) for start in range(0, clips, batch)]
        rows = torch.arange(clips)
        parts = [sampler.latents(text.rows(rows[group]), negative, seeds[group]) for group in groups]
        latents["plaudit"] = torch.cat(parts)[:1]

    def naive(way: str, bf16: bool) -> None:
        first = text.rows(torch.tensor([0]))
        latents[way] = naive_latents(model, predict, first, negative, noise[:1], steps, bf16)

    peaks = {dtype: 0.0 for dtype in (torch.bfloat16, torch.float32)}

    def measure_peaks() -> None:  # in turns with the rest, for machines whose speed changes
        for dtype in peaks:
            peaks[dtype] = max(peaks[dtype], matrix_peak(dtype, device, repeats=3))

    ways = {
        "naive float32": lambda: naive("naive float32", False),
        "naive bfloat16": lambda: naive("naive bfloat16", True),
        "plaudit": batched,
        "peaks": measure_peaks,
    }
    seconds = in_turns(ways, repeats, lambda done, total: None)
    del seconds["peaks"]
    seconds["plaudit"] /= clips
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        batched()
    facts = {
        "batch": batch,
        "warm_up_seconds": warm_up,
        "first_clip_seconds": seconds_of(lambda: sampler.latents(text.rows(torch.tensor([0])), negative, [0]).cpu()),
        **_arithmetic(2 * steps * model.forward_flops(frames), seconds, peaks),
        "relative_rms": relative_rms(latents["plaudit"], latents["naive float32"]),
        "relative_rms_naive_bf16": relative_rms(latents["naive bfloat16"], latents["naive float32"]),
        **({"peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30} if device.type == "cuda" else {}),
    }
    what = f"latents of a clip, {steps} Euler steps with guidance, {frames} frames"
    return Section("sample", what, seconds, "naive float32", facts)


def sampler_of(model: FluxAudio, frames: int, steps: int, execution: Execution) -> Sampler:
    """A sampler in Euler steps with guidance."""
    return Sampler.build(model, SamplingSettings(steps=steps, guidance=Guidance(weight=GUIDANCE)), frames, execution)


def _arithmetic(operations: int, seconds: dict[str, float], peaks: dict[torch.dtype, float]) -> dict[str, float]:
    """Ratios of the measured times, and of the time that a clip's operations take at the rate of large products."""
    limit = operations / peaks[torch.bfloat16]
    return {
        "times_naive_float32": seconds["naive float32"] / seconds["plaudit"],
        "times_naive_bf16": seconds["naive bfloat16"] / seconds["plaudit"],
        "share_of_peak": limit / seconds["plaudit"],
        "operations_a_clip_tera": operations / 1e12,
        "peak_bf16_tflops": peaks[torch.bfloat16] / 1e12,
        "peak_float32_tflops": peaks[torch.float32] / 1e12,
        "limit_seconds_a_clip": limit,
        "limit_times_naive_float32": seconds["naive float32"] / limit,
        "limit_times_naive_bf16": seconds["naive bfloat16"] / limit,
    }


def relative_rms(result: Tensor, exact: Tensor) -> float:
    """RMS of the difference over that of `exact`."""
    return float((result - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def warm_ups(options: list[str]) -> dict[str, float]:
    """Seconds of compiling in a process with an empty cache, and in a second one with that cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.sampling", "--warm-up-only", *options]
        seconds = [
            float(subprocess.run(command, env=os.environ | {CACHE: folder}, check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(2)
        ]
    return {"warm_up_first": seconds[0], "warm_up_second": seconds[1]}


def main(
    name: Annotated[
        str, typer.Option("--network", help="A published size with random weights, or a model.")
    ] = "fluxaudio-s-44k",
    clips: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps.")] = 25,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips at once.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each way, of which the median counts.")] = 3,
    compile: Annotated[Compile, typer.Option(help="Compile the network; two processes time that, too.")] = "no",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    warm_up_only: Annotated[bool, typer.Option(help="Compile, and print the seconds that it took.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Sampling with guidance against naive ways: clip by clip, two passes a step, everything computed each time.

    The naive network has PyTorch's own convolutions and attention (benchmarks/reference_training.py); ways are run in
    turns in one process.
    """
    where, execution = resolve_device(device), Execution(batch=batch, compile=compile)
    model, frames = network(name, where)
    if warm_up_only:
        print(sampler_of(model, frames, steps, execution).warm_up())
        return
    results: dict[str, Any] = {}
    if compile != "no":
        sizes = ["--batch", str(sampler_of(model, frames, steps, execution).batch), "--steps", str(steps)]
        results |= warm_ups([*sizes, "--network", name, "--compile", compile, "--device", device])
    section = bench_sample(model, frames, clips, steps, repeats, execution)
    results = {
        **{key: section.facts[key] for key in ("times_naive_float32", "times_naive_bf16", "share_of_peak")},
        "relative_rms": section.facts["relative_rms"],
        **results,
        "what": section.what,
        "compile": compile,
        "seconds_a_clip": section.seconds,
        **{key: value for key, value in section.facts.items() if not key.startswith("times")},
        "machine": machine(where),
    }
    if as_json:
        print(json.dumps(results))
        return
    for key, value in results.items():
        print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    typer.run(main)

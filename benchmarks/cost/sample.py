"""Sampling compared with a naive implementation and with the limits of arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cost.timing import Advance, Section, in_turns
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.generate.sampling import Sampler, initial_noise
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from plaudit.machine import matrix_peak, seconds_of
from plaudit.types import TextFeatures

GUIDANCE = 4.0
SEEDS = 100


def naive_latents(
    model: FluxAudio, text: TextFeatures, negative: TextFeatures, noise: Tensor, steps: int, bf16: bool
) -> Tensor:
    """Latents [B, N, C] clip by clip with two full passes a step."""
    latents = []
    with torch.no_grad(), torch.autocast(noise.device.type, torch.bfloat16, enabled=bf16):
        for row in range(len(noise)):
            conditions = text.rows(torch.tensor([row]))
            x = noise[row : row + 1]
            for step in range(steps):
                t = torch.full((1,), 1 - step / steps, device=noise.device)
                positive, rejected = model(x, conditions, t).float(), model(x, negative, t).float()
                x = x - (GUIDANCE * positive + (1 - GUIDANCE) * rejected) / steps
            latents.append(model.unstandardize(x))
    return torch.cat(latents)


def bench_sample(
    model: FluxAudio, frames: int, clips: int, steps: int, repeats: int, execution: Execution, advance: Advance
) -> Section:
    """Seconds per clip of `frames` latents over `clips` clips in Euler steps with guidance, and facts on them.

    Texts are random features. The naive ways sample one clip a repeat.
    """
    config, device = model.config, model.latent_mean.device
    generator = torch.Generator().manual_seed(0)
    text = TextFeatures(
        torch.randn(clips, config.text_length, config.text_dim, generator=generator),
        torch.randn(clips, config.text_c_dim, generator=generator),
    ).to(device)
    negative = model.empty_text(1)
    settings = SamplingSettings(steps=steps, guidance=Guidance(weight=GUIDANCE))
    sampler = Sampler.build(model, settings, frames, execution)
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
        latents[way] = naive_latents(model, text.rows(torch.tensor([0])), negative, noise[:1], steps, bf16)

    ways = {
        "naive float32": lambda: naive("naive float32", False),
        "naive bfloat16": lambda: naive("naive bfloat16", True),
        "plaudit": batched,
    }
    seconds = in_turns(ways, repeats, advance)
    seconds["plaudit"] /= clips
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        batched()
    facts = {
        "batch": batch,
        "warm-up seconds (compiling)": warm_up,
        "first clip, seconds": seconds_of(lambda: sampler.latents(text.rows(torch.tensor([0])), negative, [0])),
        **_arithmetic(2 * steps * model.forward_flops(frames), seconds, device),
        "relative RMS difference of latents to float32": relative_rms(latents["plaudit"], latents["naive float32"]),
        "the same of naive bfloat16": relative_rms(latents["naive bfloat16"], latents["naive float32"]),
        **({"peak memory, GiB": torch.cuda.max_memory_allocated() / 2**30} if device.type == "cuda" else {}),
    }
    what = f"latents of a clip, {steps} Euler steps with guidance, {frames} frames"
    return Section("sample", what, seconds, "naive float32", facts)


def _arithmetic(operations: int, seconds: dict[str, float], device: torch.device) -> dict[str, float]:
    """The time of a clip's operations at the rate of large matrix products, and the measured times relative to it."""
    bf16, float32 = (matrix_peak(dtype, device) for dtype in (torch.bfloat16, torch.float32))
    limit = operations / bf16
    return {
        "operations a clip, in units of 1e12": operations / 1e12,
        "matrix peak in bf16, TFLOP/s": bf16 / 1e12,
        "matrix peak in float32, TFLOP/s": float32 / 1e12,
        "limit of bf16 arithmetic, seconds a clip": limit,
        "fraction of the bf16 peak": limit / seconds["plaudit"],
        "times faster than naive bfloat16": seconds["naive bfloat16"] / seconds["plaudit"],
        "most that the arithmetic allows over naive float32": seconds["naive float32"] / limit,
        "most that it allows over naive bfloat16": seconds["naive bfloat16"] / limit,
    }


def relative_rms(result: Tensor, exact: Tensor) -> float:
    """RMS of the difference over that of `exact`."""
    return float((result - exact).square().mean().sqrt() / exact.square().mean().sqrt())

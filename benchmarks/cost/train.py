"""One training update: a batch in bfloat16 against the same clips one after the other in float32."""

from __future__ import annotations

import torch

from benchmarks.cost.timing import Advance, Section, in_turns
from plaudit.backbone.base import FORWARD_AND_BACKWARD
from plaudit.backbone.ema import PostHocEMA
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.flow import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.machine import matrix_peak
from plaudit.types import TextFeatures


def bench_train(model: FluxAudio, frames: int, batch: int, repeats: int, advance: Advance) -> Section:
    """Seconds per clip of forward, backward, clipping, AdamW and the running averages, on random data.

    Trains `model` in place.
    """
    config, device = model.config, model.latent_mean.device
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, frames, config.latent_dim, generator=generator).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    t = logit_normal_time(batch, generator).to(device)
    text = TextFeatures(
        torch.randn(batch, config.text_length, config.text_dim, generator=generator),
        torch.randn(batch, config.text_c_dim, generator=generator),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6)
    ema, updates = PostHocEMA(model), 0

    def update(bf16: bool, size: int) -> None:
        nonlocal updates
        for start in range(0, batch, size):
            rows = torch.arange(start, min(start + size, batch))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                predicted = model(interpolate(latents[rows], noise[rows], t[rows]), text.rows(rows), t[rows])
            loss = flow_loss(predicted, velocity(latents[rows], noise[rows])).sum() / batch
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        updates += 1
        ema.update(updates)

    model.train()
    ways = {
        "naive float32": lambda: update(False, 1),
        "naive bfloat16": lambda: update(True, 1),
        "plaudit": lambda: update(True, batch),
    }
    taken = in_turns(ways, repeats, advance)
    model.eval()
    seconds = {way: total / batch for way, total in taken.items()}
    peak = matrix_peak(torch.bfloat16, device)
    return Section(
        "train",
        f"a clip of one update on {batch} clips of {frames} frames",
        seconds,
        "naive float32",
        {
            "batch": batch,
            "clips a second": 1 / seconds["plaudit"],
            "matrix peak in bf16, TFLOP/s": peak / 1e12,
            "fraction of the bf16 peak": FORWARD_AND_BACKWARD * model.forward_flops(frames) / seconds["plaudit"] / peak,
            **({"peak memory, GiB": torch.cuda.max_memory_allocated() / 2**30} if device.type == "cuda" else {}),
        },
    )

"""How well a model in training predicts the velocity of clips that it never saw, by time."""

from __future__ import annotations

import torch

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.flow import flow_loss, interpolate, velocity
from plaudit.stages.sft import draw_latents
from plaudit.training.data import Source, generator_for

BINS = 10
"""Bins of equal width that the time from data (0) to noise (1) is cut into (ours)."""

SEED = 20260
"""Of the noise and the times, which are the same at every call, in every run."""


@torch.inference_mode()
def validation_losses(model: FluxAudio, source: Source, clips: int, batch: int) -> dict[str, float]:
    """Flow loss of the first `clips` of `source` with their scores and texts, and its mean in each bin of time.

    Clip i is asked at one time, evenly spread within bin i mod `BINS`, with noise of its own, so that two calls
    differ by the weights alone. Keys: "loss", which weighs the bins equally, and "loss_0.0" ... "loss_0.9" by the
    bin's lower edge; a bin that no clip fell into is left out.
    """
    device = model.latent_mean.device
    rows = source.rows[:clips]
    numbers = torch.arange(len(rows))
    times = (numbers % BINS + (numbers // BINS + 0.5) / (len(rows) // BINS + 1)) / BINS
    losses = []
    for start in range(0, len(rows), batch):
        part = slice(start, min(start + batch, len(rows)))
        posterior, text = source.shards.posterior(rows[part]), source.shards.text(rows[part])
        scores = torch.from_numpy(source.scores[part]).float().to(device)
        generator = generator_for(SEED, start)
        drawn, noise = (torch.randn(posterior.mean.shape, generator=generator).to(device) for _ in range(2))
        latents = draw_latents(model, posterior.mean.to(device), posterior.std.to(device), drawn)
        t = times[part].to(device)
        predicted = model(interpolate(latents, noise, t), text.to(device), t, scores)
        losses.append(flow_loss(predicted, velocity(latents, noise)).float().cpu())
    found = torch.cat(losses)
    by_bin = {b: float(found[numbers % BINS == b].mean()) for b in range(BINS) if bool((numbers % BINS == b).any())}
    return {"loss": sum(by_bin.values()) / len(by_bin)} | {f"loss_{b / BINS:.1f}": v for b, v in by_bin.items()}

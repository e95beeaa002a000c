"""Sampling latents: noise, guidance and solver around one network, many clips at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.errors import PromptError
from plaudit.flow.guidance import Branch, branches, combine
from plaudit.flow.solvers import Velocity, integrate
from plaudit.generate.pieces import PLAIN, Plan, planned_velocity, velocity_jumps
from plaudit.generate.settings import SamplingSettings
from plaudit.types import TextFeatures


def initial_noise(seeds: Sequence[int], frames: int, latent_dim: int) -> Tensor:
    """Standard normal noise [B, frames, C]; each clip's from its own seed, so that it is the same in any batch."""
    return torch.stack(
        [torch.randn(frames, latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.inference_mode()
def sample_latents(
    model: FluxAudio,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
    plan: Plan = PLAIN,
) -> Tensor:
    """Codec latents [B, N, C] for prompts `text` (B of them), from `noise` [B, N, C]: see `initial_noise`.

    negative: features of the negative prompt, one for all or one per clip. scores [B] in the reward's own units, or
    None for no score. All passes that a step needs are run as one batch. plan: of what is more than one pass of one
    network, see plaudit.generate.pieces.
    """
    velocity = _velocity(model, text, negative, scores, len(noise), settings, plan)
    return _integrated(model, velocity, noise.to(model.latent_mean.device), settings)


def differentiable_latents(
    model: FluxAudio,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
    plan: Plan = PLAIN,
) -> Tensor:
    """The same with gradients to `noise`, which is on the model's device.

    Of each evaluation of the network only the input is kept, and the rest computed again on the way back, so that the
    memory is one evaluation's whatever the number of steps. Freeze the model's parameters first.
    """
    velocity = _velocity(model, text, negative, scores, len(noise), settings, plan)

    def checkpointed(x: Tensor, t: float, step: int) -> Tensor:
        found: Tensor = checkpoint(velocity, x, t, step, use_reentrant=False)
        return found

    return _integrated(model, checkpointed, noise, settings)


def _integrated(model: FluxAudio, velocity: Velocity, noise: Tensor, settings: SamplingSettings) -> Tensor:
    jumps = velocity_jumps(settings)
    return model.unstandardize(integrate(velocity, noise, settings.steps, settings.solver, settings.shift, jumps))


def _velocity(
    model: FluxAudio,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    clips: int,
    settings: SamplingSettings,
    plan: Plan,
) -> Velocity:
    """The velocity of whole pieces: the guided one of every network and window that the plan names."""
    if not len(text) == clips or len(negative) not in (1, clips):
        raise PromptError(
            f"{clips} clips need {clips} prompts and 1 or {clips} negatives: {len(text)}, {len(negative)}"
        )
    unwanted = negative.rows(torch.zeros(clips, dtype=torch.long)) if len(negative) == 1 else negative

    def make(network: FluxAudio, rows: Tensor) -> Velocity:
        # A second checkpoint may be one that takes no score; of the first, being asked for one is the user's error.
        takes_score = network is model or network.config.injection != "none"
        asked = scores[rows] if scores is not None and takes_score else None
        return _guided(network, text.rows(rows), unwanted.rows(rows), asked, settings)

    return planned_velocity(make, model, clips, settings, plan)


def _guided(
    model: FluxAudio, text: TextFeatures, negative: TextFeatures, scores: Tensor | None, settings: SamplingSettings
) -> Velocity:
    """The guided velocity, a function of x, time and step."""
    device, batch = model.latent_mean.device, len(text)
    text = text.to(device)
    features: dict[Branch, TextFeatures] = {
        "conditional": text,
        "text": text,
        "negative": negative.to(device),
    }
    null = torch.full((batch,), torch.nan, device=device)
    wanted = None if scores is None else scores.to(device)

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        guidance = settings.guidance.at(step / settings.steps)
        needed = branches(guidance, scored=wanted is not None)
        told = TextFeatures(
            torch.cat([features[branch].tokens for branch in needed]),
            torch.cat([features[branch].pooled for branch in needed]),
        )
        asked = None
        if wanted is not None:
            asked = torch.cat([wanted if branch == "conditional" else null for branch in needed])
        times = torch.full((batch * len(needed),), t, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            predicted = model(x.repeat(len(needed), 1, 1), told, times, asked)
        return combine(guidance, dict(zip(needed, predicted.float().chunk(len(needed)), strict=True)))

    return velocity

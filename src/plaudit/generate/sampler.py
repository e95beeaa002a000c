"""Sampling latents: noise, guidance and solver around one network, many clips at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.fluxaudio import Conditions, FluxAudio
from plaudit.errors import PromptError
from plaudit.flow.guidance import Branch, branches, combine
from plaudit.flow.solvers import Velocity, integrate
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
) -> Tensor:
    """Codec latents [B, N, C] for prompts `text` (B of them), from `noise` [B, N, C]: see `initial_noise`.

    negative: features of the negative prompt, one for all or one per clip. scores [B] in the reward's own units, or
    None for no score. What needs the prompts alone is computed once, and all passes of a step run as one batch. For
    speed give the network as `plaudit.generate.ready` makes it.
    """
    velocity = guided_velocity(model, text, negative, scores, len(noise), settings)
    x = integrate(velocity, noise.to(model.latent_mean.device), settings.steps, settings.solver, settings.shift)
    return model.unstandardize(x)


def differentiable_latents(
    model: FluxAudio,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
) -> Tensor:
    """The same with gradients to `noise`, which is on the model's device.

    Of each evaluation of the network only the input is kept, and the rest computed again on the way back, so that the
    memory is one evaluation's whatever the number of steps. Freeze the model's parameters first.
    """
    velocity = guided_velocity(model, text, negative, scores, len(noise), settings)

    def checkpointed(x: Tensor, t: float, step: int) -> Tensor:
        found: Tensor = checkpoint(velocity, x, t, step, use_reentrant=False)
        return found

    return model.unstandardize(integrate(checkpointed, noise, settings.steps, settings.solver, settings.shift))


def guided_velocity(
    model: FluxAudio,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    batch: int,
    settings: SamplingSettings,
) -> Velocity:
    """The guided velocity of `batch` clips, a function of x [B, N, C], time and step.

    x may hold W parts of each clip instead of the whole, [W B, N, C], first the first part of every clip.
    PromptError where prompts and clips are not as many.
    """
    device = model.latent_mean.device
    if not len(text) == batch or len(negative) not in (1, batch):
        raise PromptError(
            f"{batch} clips need {batch} prompts and 1 or {batch} negatives: {len(text)}, {len(negative)}"
        )
    unwanted = negative.rows(torch.zeros(batch, dtype=torch.long)) if len(negative) == 1 else negative
    told: dict[Branch, TextFeatures] = {"conditional": text, "text": text, "negative": unwanted}
    null = torch.full((batch,), torch.nan, device=device)
    asked: dict[Branch, Tensor] = {} if scores is None else {"conditional": scores.to(device)}
    guidances = [settings.guidance.at(step / settings.steps) for step in range(settings.steps)]
    bf16 = settings.precision == "bf16"

    @cache
    def conditions(needed: tuple[Branch, ...], parts: int) -> Conditions:
        """Of the passes that a step needs, `parts` times each."""
        features = [told[branch].to(device) for branch in needed]
        both = TextFeatures(torch.cat([f.tokens for f in features]), torch.cat([f.pooled for f in features]))
        wanted = torch.cat([asked.get(branch, null) for branch in needed]) if asked else None
        made = model.conditions(both, wanted)
        return made if parts == 1 else Conditions.joined([p.repeated(parts) for p in made.split(batch)])

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        guidance = guidances[step]
        needed = branches(guidance, scored=bool(asked))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            rows = conditions(needed, len(x) // batch)
            predicted = model.velocity(x, rows, torch.full((1,), t, device=device))
        return combine(guidance, dict(zip(needed, predicted.float().chunk(len(needed)), strict=True)))

    return velocity

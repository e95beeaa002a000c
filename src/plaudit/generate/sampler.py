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
    None for no score. What needs the prompts alone is computed once, and all passes of a step run as one batch. For
    speed give the network as `plaudit.generate.ready` makes it. plan: of what is more than one pass of one network.
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
    """The velocity of whole pieces, of all networks that the plan names."""
    first = guided_velocity(model, text, negative, scores, clips, settings)
    if plan.second is None:
        return planned_velocity(first, None, settings, plan)
    # A second checkpoint may be one that takes no score; of the first, being asked for one is the user's error.
    asked = None if plan.second.config.injection == "none" else scores
    second = guided_velocity(plan.second, text, negative, asked, clips, settings)
    return planned_velocity(first, second, settings, plan)


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

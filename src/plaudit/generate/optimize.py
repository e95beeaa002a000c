"""Optimizing the noise a clip is sampled from, so that its reward rises (DITTO: Novack et al., arXiv 2401.12179).

Gradients go from the reward through its encoders, the resampling, the codec and every step of the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from plaudit.codec.chunks import decode_piece
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic
from plaudit.generate.sampling import differentiable_latents, initial_noise
from plaudit.generate.settings import NoiseOptimization, SamplingSettings


class DifferentiableReward(Protocol):
    """What is asked of a reward here."""

    def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
        """waves [B, T] -> scores [B], with gradients to the waves."""


@dataclass(frozen=True)
class Optimizer:
    """A reward, its name, and how the noise is to follow it."""

    name: str
    reward: DifferentiableReward
    settings: NoiseOptimization


@dataclass(frozen=True)
class Optimized:
    """waves [B, T] of the best iteration of each clip; rewards [iterations + 1, B], the first without optimization."""

    waves: Tensor
    rewards: Tensor


def optimize_noise(
    music: TextToMusic,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    optimizer: Optimizer,
) -> Optimized:
    """Clips like those of `music.generate` from the same seeds, but from noise that the reward likes better.

    Each clip goes its own way: what else is in the batch does not matter. One whose gradient is not finite stays where
    it is for that iteration; ModelError where that is so of all, or no gradient reaches the noise.
    """
    text = music.text_encoder.encode([settings.prefix + prompt for prompt in prompts])
    negative = music.text_encoder.encode([settings.negative_prompt])
    scores = None if settings.score is None else torch.full((len(prompts),), settings.score)
    device, plan = music.backbone.latent_mean.device, music.plan(settings)
    noise = initial_noise(seeds, music.frames_of(settings), music.codec.latent_dim).to(device).requires_grad_()
    length = noise.detach().flatten(1).norm(dim=1)[:, None, None]
    optimization = optimizer.settings
    adam = torch.optim.Adam([noise], lr=optimization.learning_rate)
    best, rewards = torch.empty(0), []
    with frozen(music.backbone), frozen(music.second.backbone if music.second else music.backbone):
        for iteration in range(optimization.iterations + 1):
            latents = differentiable_latents(music.backbone, text, negative, scores, noise, settings, plan)
            waves = decode_piece(music.codec, latents.to(music.codec_device), settings.piece.loop).cpu()
            found = optimizer.reward.score_tensors(waves, music.codec.sample_rate, prompts)
            rewards.append(found.detach())
            better = torch.stack(rewards).argmax(0) == iteration
            best = torch.where(better[:, None], waves.detach(), best) if iteration else waves.detach()
            if iteration == optimization.iterations:
                break
            (gradient,) = torch.autograd.grad(-found.sum(), noise, allow_unused=True)
            usable = None if gradient is None else torch.isfinite(gradient).flatten(1).all(1)
            if gradient is None or usable is None or not usable.any():
                raise ModelError("the reward has no usable gradient in the noise; take one whose encoders have")
            noise.grad = torch.where(usable[:, None, None], gradient, 0.0)
            adam.step()
            if optimization.keep_norm:
                with torch.no_grad():
                    noise *= length / noise.flatten(1).norm(dim=1)[:, None, None]
    return Optimized(best, torch.stack(rewards))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradients within, which would cost time and memory for nothing."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)

"""Optimizing the initial noise of a clip for its reward (DITTO: Novack et al., arXiv 2401.12179).

Gradients flow from the reward through its encoders, resampling, the codec and every step of the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from plaudit.codec.chunks import decode_piece
from plaudit.devices import device_of
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic
from plaudit.generate.sampling import differentiable_latents, initial_noise
from plaudit.generate.settings import NoiseOptimization, SamplingSettings


class DifferentiableReward(Protocol):
    """A reward with a gradient."""

    def score_tensors(self, waves: Tensor, rate: int, prompts: Sequence[str]) -> Tensor:
        """waves [B, T] -> scores [B], with gradients to the waves."""


@dataclass(frozen=True)
class Optimizer:
    """A reward, its name, and the settings of the optimization."""

    name: str
    reward: DifferentiableReward
    settings: NoiseOptimization


@dataclass(frozen=True)
class Optimized:
    """waves [B, T] of each clip's best iteration; rewards [iterations + 1, B], the first before optimization."""

    waves: Tensor
    rewards: Tensor


def optimize_noise(
    music: TextToMusic,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    optimizer: Optimizer,
) -> Optimized:
    """The clips of `music.generate` with the same seeds, after gradient ascent of the reward on their noise.

    Each clip is optimized independently of the batch. One whose gradient is not finite is left unchanged for that
    iteration; ModelError where none is finite, or no gradient reaches the noise.
    """
    text = music.encode_texts([settings.text_of(prompt) for prompt in prompts])
    negative = music.encode_texts([settings.negative_prompt])
    scores = None if settings.score is None else torch.full((len(prompts),), settings.score)
    device, plan = music.backbone.latent_mean.device, music.plan(settings)
    frames = music.frames_of(settings)
    noise = initial_noise(seeds, frames, music.codec.latent_dim, settings.noise).to(device).requires_grad_()
    norm = noise.detach().flatten(1).norm(dim=1)[:, None, None]
    optimization = optimizer.settings
    adam = torch.optim.Adam([noise], lr=optimization.learning_rate)
    best, rewards = torch.empty(0), []
    with frozen(music.backbone), frozen(music.second.backbone if music.second else music.backbone):
        for iteration in range(optimization.iterations + 1):
            latents = differentiable_latents(music.backbone, text, negative, scores, noise, settings, plan)
            waves = decode_piece(music.codec, latents.to(device_of(music.codec)), settings.piece.loop).cpu()
            scored = optimizer.reward.score_tensors(waves, music.codec.sample_rate, prompts)
            rewards.append(scored.detach())
            better = torch.stack(rewards).argmax(0) == iteration
            best = torch.where(better[:, None], waves.detach(), best) if iteration else waves.detach()
            if iteration == optimization.iterations:
                break
            (gradient,) = torch.autograd.grad(-scored.sum(), noise, allow_unused=True)
            usable = None if gradient is None else torch.isfinite(gradient).flatten(1).all(1)
            if gradient is None or usable is None or not usable.any():
                raise ModelError(
                    "the reward has no usable gradient in the noise; use one whose encoders are differentiable"
                )
            noise.grad = torch.where(usable[:, None, None], gradient, 0.0)
            adam.step()
            if optimization.keep_norm:
                with torch.no_grad():
                    noise *= norm / noise.flatten(1).norm(dim=1)[:, None, None]
    return Optimized(best, torch.stack(rewards))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters of `module` without gradients, which would cost time and memory for nothing."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)

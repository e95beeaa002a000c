"""Reward-conditioned flow matching: the loss of SFT and of both phases of expert iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.flow.path import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.stages.data import TrainingSet, generator_for
from plaudit.stages.settings import TrainSettings
from plaudit.stages.training import BatchLoss
from plaudit.types import TextFeatures


def conditional_flow_loss(model: FluxAudio, data: TrainingSet, settings: TrainSettings) -> BatchLoss:
    """The flow loss with the clips' scores as condition.

    Latents are drawn from the posterior at every step; each sample loses its score with probability `score_dropout`
    and, independently, both text features with probability `text_dropout`.
    """
    device = model.latent_mean.device

    def loss(network: nn.Module, index: int) -> dict[str, Tensor]:
        generator = generator_for(settings.seed, index)
        batch = data.batch(index, settings.batch)
        latents = model.standardize(batch.posterior.sample(generator).to(device))  # [B, N, C]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        t = logit_normal_time(len(latents), generator).to(device)
        text = drop_text(model, batch.text.to(device), settings.text_dropout, generator)
        scores = drop_scores(batch.scores, settings.score_dropout, generator).to(device)
        predicted = network(interpolate(latents, noise, t), text, t, scores)
        return {"loss": flow_loss(predicted, velocity(latents, noise)).mean()}

    return loss


def drop_scores(scores: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Scores [B] with some replaced by NaN, the mark of the null score."""
    dropped = torch.rand(scores.shape, generator=generator) < probability
    return torch.where(dropped, torch.nan, scores)


def drop_text(
    model: FluxAudio, text: TextFeatures, probability: float, generator: torch.Generator
) -> TextFeatures:
    """Text features with those of some samples replaced by the encoding of the empty string."""
    dropped = (torch.rand(len(text), generator=generator) < probability).to(text.pooled.device)
    empty = model.empty_text(len(text))
    return TextFeatures(
        torch.where(dropped[:, None, None], empty.tokens, text.tokens),
        torch.where(dropped[:, None], empty.pooled, text.pooled),
    )

"""CRPO (TangoFlux, arXiv 2412.21037): preference tuning on pairs that CLAP chose among the model's own clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.flow.path import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.stages.data import Source, TrainingSet, generator_for
from plaudit.stages.settings import CrpoSettings
from plaudit.stages.training import BatchLoss


@dataclass(frozen=True)
class Pair:
    """Of one caption's candidates, by position in the list of all, the highest CLAP score and the lowest."""

    caption: str
    winner: int
    loser: int
    margin: float


def choose_pairs(captions: list[str], clap_scores: np.ndarray, count: int) -> list[Pair]:
    """Best against worst candidate by CLAP score for each caption; of these pairs, the `count` of widest margin.

    captions: one per candidate, equal for candidates of the same caption. Captions with one candidate make no pair.
    """
    groups: dict[str, list[int]] = {}
    for position, caption in enumerate(captions):
        groups.setdefault(caption, []).append(position)
    pairs = []
    for caption, members in groups.items():
        ranked = sorted(members, key=lambda m: clap_scores[m])
        if len(ranked) > 1:
            margin = float(clap_scores[ranked[-1]] - clap_scores[ranked[0]])
            pairs.append(Pair(caption, ranked[-1], ranked[0], margin))
    return sorted(pairs, key=lambda p: -p.margin)[:count]


def crpo_objective(
    winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor, beta: float, lambda_fm: float
) -> dict[str, Tensor]:
    """The CRPO loss from per-sample flow losses [B] of the trained model and of the frozen reference.

    loss = -log sigmoid(-(beta/2) [(m_w - m_l) - (r_w - r_l)]) + lambda_fm m_w, mean over the batch. Beside it:
    both parts, and the implicit accuracy (share of pairs whose bracket is below zero).
    """
    bracket = (winner - loser) - (reference_winner - reference_loser)
    preference = -functional.logsigmoid(-0.5 * beta * bracket).mean()
    flow = winner.mean()
    return {
        "loss": preference + lambda_fm * flow,
        "preference_loss": preference,
        "winner_flow_loss": flow,
        "implicit_accuracy": (bracket < 0).float().mean(),
    }


def crpo_loss(
    model: FluxAudio, reference: FluxAudio, winners: Source, losers: Source, settings: CrpoSettings
) -> BatchLoss:
    """The batch loss of CRPO. winners and losers hold the same captions in the same order.

    Winner and loser get the same noise, the same t and the same condition: the score that the candidates were
    sampled with, so that only what CLAP preferred differs between them (ours: the paper does not say).
    """
    device = model.latent_mean.device
    data_w, data_l = (TrainingSet([source], settings.train.seed) for source in (winners, losers))

    def loss(network: nn.Module, index: int) -> dict[str, Tensor]:
        generator = generator_for(settings.train.seed, index)
        batch_w, batch_l = (data.batch(index, settings.train.batch) for data in (data_w, data_l))
        latents_w = model.standardize(batch_w.posterior.sample(generator).to(device))  # [B, N, C]
        latents_l = model.standardize(batch_l.posterior.sample(generator).to(device))
        noise = torch.randn(latents_w.shape, generator=generator).to(device)
        t = logit_normal_time(len(latents_w), generator).to(device)
        text, scores = batch_w.text.to(device), batch_w.scores.to(device)

        def per_sample(forward: nn.Module, latents: Tensor) -> Tensor:
            return flow_loss(forward(interpolate(latents, noise, t), text, t, scores), velocity(latents, noise))

        with torch.no_grad():
            reference_w, reference_l = per_sample(reference, latents_w), per_sample(reference, latents_l)
        return crpo_objective(
            per_sample(network, latents_w),
            per_sample(network, latents_l),
            reference_w,
            reference_l,
            settings.beta,
            settings.lambda_fm,
        )

    return loss

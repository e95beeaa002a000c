"""CRPO (TangoFlux, arXiv 2412.21037): preference tuning on pairs against a frozen reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from plaudit.backbone.base import Backbone
from plaudit.flow import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.generate.model import TextToMusic
from plaudit.settings import NotNegative, Positive
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.stages.pairs import pair_sources
from plaudit.stages.sft import PreferenceTrainSettings, conditions_of, draw_conditions
from plaudit.training.data import Source, TrainingSet, draw_latents, generator_for
from plaudit.training.loop import Inputs


class CrpoSettings(StageSettings):
    """Preference tuning on (winner, loser) pairs. beta: sharpness of the preference; lambda_fm: weight of the winner's
    flow loss."""

    beta: Positive = 2000.0
    lambda_fm: NotNegative = 1.0
    train: PreferenceTrainSettings


def crpo_loss(
    winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor, beta: float, lambda_fm: float
) -> dict[str, Tensor]:
    """The CRPO loss from per-sample flow losses [B] of the trained model and of the frozen reference.

    loss = -log sigmoid(-(beta/2) [(m_w - m_l) - (r_w - r_l)]) + lambda_fm m_w, mean over the batch. Beside it:
    both parts, and the implicit accuracy (fraction of pairs whose bracket is below zero).
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


@dataclass(frozen=True)
class CrpoObjective:
    """CRPO against a frozen `reference`. winners and losers hold the same captions in the same order.

    Winner and loser get the same noise, the same t and the same condition: the caption and the score that the
    candidates were sampled with (ours: the paper does not say), or neither where it is dropped.
    """

    model: Backbone
    reference: Backbone
    winners: Source
    losers: Source
    settings: CrpoSettings

    def draw(self, index: int, part: slice) -> Inputs:
        """Pairs, and the noise and times that both of a pair share."""
        train, generator = self.settings.train, generator_for(self.settings.train.seed, index)
        won, lost = (TrainingSet([s], train.seed).batch(index, train.batch, part) for s in (self.winners, self.losers))
        shape = (train.batch, *won.posterior.mean.shape[1:])  # [B, N, C]
        drawn = {
            "winner_noise": torch.randn(shape, generator=generator)[part],
            "loser_noise": torch.randn(shape, generator=generator)[part],
            "noise": torch.randn(shape, generator=generator)[part],
            "t": logit_normal_time(train.batch, generator)[part],
            "winner_mean": won.posterior.mean,
            "winner_std": won.posterior.std,
            "loser_mean": lost.posterior.mean,
            "loser_std": lost.posterior.std,
        }
        return drawn | draw_conditions(won, train, generator, part)

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """`crpo_loss` of the pairs, and its parts."""
        noise, t = inputs["noise"], inputs["t"]
        text, scores = conditions_of(self.model, inputs)
        winner, loser = (
            draw_latents(self.model, inputs[f"{side}_mean"], inputs[f"{side}_std"], inputs[f"{side}_noise"])
            for side in ("winner", "loser")
        )

        def per_sample(forward: nn.Module, latents: Tensor) -> Tensor:
            return flow_loss(forward(interpolate(latents, noise, t), text, t, scores), velocity(latents, noise))

        with torch.no_grad():
            reference_winner, reference_loser = (per_sample(self.reference, side) for side in (winner, loser))
        return crpo_loss(
            per_sample(network, winner),
            per_sample(network, loser),
            reference_winner,
            reference_loser,
            self.settings.beta,
            self.settings.lambda_fm,
        )


class CRPO(Stage):
    """Tuning on the pairs of the last pairs stage, against a frozen copy of the model before."""

    Settings = CrpoSettings
    uses = ("pairs", "training")

    def run(self, settings: CrpoSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """Train the model against its copy."""
        model, reference = inputs.model(), inputs.model().backbone.requires_grad_(False)
        objective = CrpoObjective(model.backbone, reference, *pair_sources(inputs.pairs()), settings)
        inputs.train(model, objective, settings.train, folder, trained=2, frozen=2)
        return model

    def cost(self, settings: CrpoSettings, costs: Costs) -> StepCost:
        """Winner and loser pass the model and the reference."""
        return costs.training(settings.train, sides=2, frozen=2)

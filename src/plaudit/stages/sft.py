"""SFT: reward-conditioned flow matching on the whole corpus. Its objective is also that of expert iteration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.backbone.base import Backbone
from plaudit.flow import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.generate.model import TextToMusic
from plaudit.settings import Fraction
from plaudit.stages import Stage, StageSettings
from plaudit.stages.inputs import StageInputs
from plaudit.training.data import TrainingSet, draw_latents, generator_for
from plaudit.training.loop import Inputs
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures


class FlowTrainSettings(TrainSettings):
    """A pass of flow matching. score_dropout, text_dropout: the probability that a sample loses its conditioning score,
    or its text."""

    score_dropout: Fraction = 0.1
    text_dropout: Fraction = 0.1


class SftSettings(StageSettings):
    """Supervised training on the labelled corpus."""

    train: FlowTrainSettings


@dataclass(frozen=True)
class SftObjective:
    """The flow loss with the clips' scores as condition.

    Latents are drawn from the posterior at every step; each sample loses its score with probability `score_dropout`
    and, independently, both text features with probability `text_dropout`.
    """

    model: Backbone
    data: TrainingSet
    settings: FlowTrainSettings

    def draw(self, index: int, part: slice) -> Inputs:
        """Clips, noise, times, and which conditions are dropped."""
        settings, generator = self.settings, generator_for(self.settings.seed, index)
        batch = self.data.batch(index, settings.batch, part)
        shape = (settings.batch, *batch.posterior.mean.shape[1:])  # [B, N, C]
        drawn = {
            "posterior_noise": torch.randn(shape, generator=generator)[part],
            "noise": torch.randn(shape, generator=generator)[part],
            "t": logit_normal_time(settings.batch, generator)[part],
            "text_dropped": (torch.rand(settings.batch, generator=generator) < settings.text_dropout)[part],
        }
        score_dropped = (torch.rand(settings.batch, generator=generator) < settings.score_dropout)[part]
        return drawn | {
            "mean": batch.posterior.mean,
            "std": batch.posterior.std,
            "tokens": batch.text.tokens,
            "pooled": batch.text.pooled,
            "scores": torch.where(score_dropped, torch.nan, batch.scores),  # NaN marks the null score
        }

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Mean squared error of the velocity at a point of the path from each clip to its noise."""
        noise, t = inputs["noise"], inputs["t"]
        latents = draw_latents(self.model, inputs["mean"], inputs["std"], inputs["posterior_noise"])
        text = TextFeatures(inputs["tokens"].float(), inputs["pooled"].float())
        text = drop_text(self.model, text, inputs["text_dropped"])
        predicted = network(interpolate(latents, noise, t), text, t, inputs["scores"])
        return {"loss": flow_loss(predicted, velocity(latents, noise)).mean()}


def drop_text(model: Backbone, text: TextFeatures, dropped: Tensor) -> TextFeatures:
    """Text features, where `dropped` [B] replaced by the encoding of the empty string."""
    empty = model.empty_text(len(text))
    return TextFeatures(
        torch.where(dropped[:, None, None], empty.tokens, text.tokens),
        torch.where(dropped[:, None], empty.pooled, text.pooled),
    )


class SFT(Stage):
    """Training on the labelled corpus, with the clips' rewards as conditioning scores."""

    Settings = SftSettings
    uses = ("corpus", "training")

    def run(self, settings: SftSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """Train the model on the corpus."""
        model, train = inputs.model(), settings.train
        inputs.train(
            model, SftObjective(model.backbone, TrainingSet([inputs.corpus()], train.seed), train), train, folder
        )
        return model

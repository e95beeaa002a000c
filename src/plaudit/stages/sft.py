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
from plaudit.training.data import Batch, TrainingSet, draw_latents, generator_for
from plaudit.training.loop import Inputs
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures


class FlowTrainSettings(TrainSettings):
    """A pass of flow matching. score_dropout, text_dropout: the probability that a sample loses its conditioning score,
    or its text."""

    score_dropout: Fraction = 0.1
    text_dropout: Fraction = 0.1


class PreferenceTrainSettings(FlowTrainSettings):
    """A pass of preference tuning. score_dropout, text_dropout: as of a pass of flow matching; 0.1 is published."""

    score_dropout: Fraction = 0.0
    text_dropout: Fraction = 0.0


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
        }
        return (
            drawn
            | draw_conditions(batch, settings, generator, part)
            | {
                "mean": batch.posterior.mean,
                "std": batch.posterior.std,
            }
        )

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Mean squared error of the velocity at a point of the path from each clip to its noise."""
        noise, t = inputs["noise"], inputs["t"]
        latents = draw_latents(self.model, inputs["mean"], inputs["std"], inputs["posterior_noise"])
        text, scores = conditions_of(self.model, inputs)
        predicted = network(interpolate(latents, noise, t), text, t, scores)
        return {"loss": flow_loss(predicted, velocity(latents, noise)).mean()}


def draw_conditions(batch: Batch, settings: FlowTrainSettings, generator: torch.Generator, part: slice) -> Inputs:
    """The texts and scores of the clips at `part`, and which of either are dropped, each on its own."""
    text_dropped = torch.rand(settings.batch, generator=generator) < settings.text_dropout
    score_dropped = torch.rand(settings.batch, generator=generator) < settings.score_dropout
    return {
        "tokens": batch.text.tokens,
        "pooled": batch.text.pooled,
        "text_dropped": text_dropped[part],
        "scores": torch.where(score_dropped[part], torch.nan, batch.scores),  # NaN marks the null score
    }


def conditions_of(model: Backbone, inputs: Inputs) -> tuple[TextFeatures, Tensor | None]:
    """Text and scores of drawn inputs, dropped texts replaced by the encoding of the empty string.

    The scores are None for a model without an injection, which takes none.
    """
    text = TextFeatures(inputs["tokens"].float(), inputs["pooled"].float())
    dropped, empty = inputs["text_dropped"], model.empty_text(len(text))
    text = TextFeatures(
        torch.where(dropped[:, None, None], empty.tokens, text.tokens),
        torch.where(dropped[:, None], empty.pooled, text.pooled),
    )
    return text, inputs["scores"] if model.config.injection != "none" else None


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

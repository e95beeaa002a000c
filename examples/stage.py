"""A stage: training on the clips of the corpus whose rewards are the highest (data set filtering).

Name it in a recipe by its file, anywhere in the list of stages:

    stages:
      - {kind: sft, train: {steps: 2000, learning_rate: 1.0e-4}}
      - kind: examples/stage.py:BestClips
        fraction: 0.1
        train: {steps: 500, learning_rate: 1.0e-5}

An installed package can name it instead, as an entry point of the group `plaudit.stages`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plaudit.errors import RecipeError
from plaudit.generate.model import TextToMusic
from plaudit.settings import Fraction
from plaudit.stages import Stage
from plaudit.stages.inputs import StageInputs
from plaudit.stages.sft import SftObjective, SftSettings
from plaudit.training.data import Source, TrainingSet


class BestClipsSettings(SftSettings):
    """fraction: of the clips that have a reward, how many are kept."""

    fraction: Fraction = 0.1


class BestClips(Stage):
    """Supervised training on the clips of highest reward. `uses` declares what it takes from its inputs."""

    Settings = BestClipsSettings
    uses = ("corpus", "training")

    def run(self, settings: BestClipsSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """The model of the stage before, trained further."""
        model, train = inputs.model(), settings.train
        best = best_clips(inputs.corpus(), settings.fraction)
        objective = SftObjective(model.backbone, TrainingSet([best], train.seed), train)
        inputs.train(model, objective, train, folder)
        return model


def best_clips(corpus: Source, fraction: float) -> Source:
    """The clips of highest reward, in the order of the corpus; NaN is no reward."""
    count = round(fraction * int(np.isfinite(corpus.scores).sum()))
    if not count:
        raise RecipeError(f"a fraction of {fraction} of the corpus is no clip; raise stages.*.fraction")
    order = np.argsort(np.nan_to_num(-corpus.scores, nan=np.inf), kind="stable")
    kept = np.sort(order[:count])
    return Source(corpus.shards, corpus.rows[kept], corpus.scores[kept])

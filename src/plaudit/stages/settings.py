"""What each stage of the chain can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from plaudit.backbone.config import Injection
from plaudit.settings import Count, CountOrZero, NotNegative, Positive, Settings, Share


class TrainSettings(Settings):
    """One training pass on the shared loop. `batch` x `accumulate` samples make one update; the learning rate is
    multiplied by 0.1 at each share of the steps named in `decay_at`."""

    steps: CountOrZero
    learning_rate: Positive
    batch: Count = 32
    accumulate: Count = 1
    warmup: CountOrZero = 0
    decay_at: tuple[Share, ...] = ()
    weight_decay: NotNegative = 1e-6
    clip: Positive = 1.0
    score_dropout: Share = 0.1
    text_dropout: Share = 0.1
    checkpoint_every: Count = 100
    seed: int = 0


class SftSettings(Settings):
    """Stage 1: reward-conditioned training on the whole corpus."""

    injection: Injection = "global_adaln"
    train: TrainSettings


class ExpertSettings(Settings):
    """Stage 2: rank the model's own clips by z(reward) + z(CLAP), keep the best, train on corpus + kept, then on the
    kept alone (`polish`)."""

    candidates: Count = 630
    keep: Count = 64
    oversample: Count = 5
    rounds: Count = 1
    score: float = 1.5
    seed: int = 1000
    train: TrainSettings
    polish: TrainSettings

    @model_validator(mode="after")
    def _keeps_fewer_than_it_makes(self) -> ExpertSettings:
        if self.keep > self.candidates:
            raise ValueError(f"keep ({self.keep}) must not exceed candidates ({self.candidates})")
        return self


class CrossLoadSettings(Settings):
    """Stage 3: the same weights in another injection's forward."""

    injection: Injection = "input_add"


class CrpoSettings(Settings):
    """Stage 4: preference tuning on (winner, loser) pairs chosen by CLAP among candidates of the same caption."""

    captions: Count = 64
    candidates: Annotated[int, Field(ge=2)] = 4
    pairs: Count = 64
    beta: Positive = 2000.0
    lambda_fm: NotNegative = 1.0
    seed: int = 5000
    train: TrainSettings

    @model_validator(mode="after")
    def _can_make_the_pairs(self) -> CrpoSettings:
        if self.pairs > self.captions:
            raise ValueError(f"pairs ({self.pairs}) must not exceed captions ({self.captions}): one pair per caption")
        return self

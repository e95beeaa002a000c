"""What each stage of the chain can be told."""

from __future__ import annotations

from typing import Annotated, Literal

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


class LoopSettings(Settings):
    """How training is carried out, the same for every stage. What is learned doesn't depend on it, but for rounding, so
    that a run can go on under other settings.

    strategy: of several processes, "ddp" gives each a whole model, "fsdp" a share of weights, averages and optimizer.
    activation_checkpointing, compile: compute blocks twice to save memory; compile them.
    prefetch, readers: batches prepared ahead, by that many threads.
    keep_checkpoints: the last so many stay. snapshot_every: updates between snapshots of the running averages.
    sample_every, sample_prompts: updates between sample clips, and what they are of; validate_every, validation_clips:
    updates between losses on held-out clips. Both are of the average that is deployed. 0 is never.
    trackers: where metrics go beside `metrics.jsonl`; needs the `track` extra.
    explosion: a loss of so many times the recent median stops training.
    peak_tflops: what one device can do, for MFU, where it is not one whose peak is known.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = False
    compile: bool = False
    prefetch: Count = 2
    readers: Count = 1
    keep_checkpoints: Count = 1
    snapshot_every: CountOrZero = 0
    sample_every: CountOrZero = 0
    sample_prompts: tuple[str, ...] = ("calm piano", "fast electronic music with drums")
    validate_every: CountOrZero = 0
    validation_clips: Count = 256
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    explosion: Annotated[float, Field(gt=1)] = 100.0
    peak_tflops: Positive | None = None


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

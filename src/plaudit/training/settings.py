"""What each stage of the chain can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from plaudit.settings import MOST, Count, CountOrZero, Fraction, NotNegative, Positive, Score, Seed, Settings


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al., arXiv 2106.09685) in place of all weights: W + alpha / rank B A, B zero at first.

    targets: which linear layers of the blocks get one, by the last part of their names. Convolutions get none.
    """

    rank: Count = 16
    alpha: Count = 32
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("qkv", "out", "gate_up", "down", "modulation")


class TrainSettings(Settings):
    """One training pass on the shared loop. `batch` x `accumulate` samples make one update; the learning rate is
    multiplied by 0.1 at each share of the steps named in `decay_at`. lora: train adapters, which are merged into the
    weights at the end, and leave the weights themselves as they are."""

    steps: CountOrZero
    learning_rate: Positive
    batch: Count = 32
    accumulate: Count = 1
    warmup: CountOrZero = 0
    decay_at: tuple[Fraction, ...] = ()
    weight_decay: NotNegative = 1e-6
    max_grad_norm: Positive = 1.0
    score_dropout: Fraction = 0.1
    text_dropout: Fraction = 0.1
    checkpoint_every: Count = 100
    seed: Seed = 0
    lora: LoraSettings | None = None


class LoopSettings(Settings):
    """How training is carried out, the same for every stage. What is learned doesn't depend on it, but for rounding, so
    that a run can go on under other settings.

    strategy: of several processes, "ddp" gives each a whole model, "fsdp" a share of weights, averages and optimizer.
    activation_checkpointing, compile: compute blocks twice to save memory; compile them.
    prefetch, loader_threads: batches prepared ahead, by that many threads.
    keep_checkpoints: the last so many stay. snapshot_every: updates between snapshots of the running averages.
    sample_every, sample_prompts: updates between sample clips, and what they are of; validate_every, validation_clips:
    updates between losses on held-out clips. Both are of the average that is deployed. 0 is never.
    trackers: where metrics go beside `metrics.jsonl`; needs the `track` extra.
    max_loss_ratio: a loss of so many times the recent median stops training.
    peak_tflops: what one device can do, for MFU, where it is not one whose peak is known.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = False
    compile: bool = False
    prefetch: Count = 2
    loader_threads: Count = 1
    keep_checkpoints: Count = 1
    snapshot_every: CountOrZero = 0
    sample_every: CountOrZero = 0
    sample_prompts: tuple[str, ...] = ("calm piano", "fast electronic music with drums")
    validate_every: CountOrZero = 0
    validation_clips: Count = 256
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    max_loss_ratio: Annotated[float, Field(gt=1, le=MOST)] = 100.0
    peak_tflops: Positive | None = None


class SftSettings(Settings):
    """Stage 1: reward-conditioned training on the whole corpus.

    injection: by default "global_adaln", the paper's; of a model that training starts from, its own.
    """

    injection: str | None = None
    train: TrainSettings


class ExpertIterationSettings(Settings):
    """Stage 2: rank the model's own clips by z(reward) + z(CLAP), keep the best, train on corpus + kept, then on the
    kept alone (`fine_tune`). With several `rounds` the next begins with the model that the last one left.

    include_corpus: false trains on the kept alone in both passes, without data of others.
    """

    candidates: Count = 630
    keep: Count = 64
    oversample: Count = 5
    rounds: Count = 1
    include_corpus: bool = True
    score: Score = 1.5
    seed: Seed = 1000
    train: TrainSettings
    fine_tune: TrainSettings | None = None

    @model_validator(mode="after")
    def _keeps_fewer_than_it_makes(self) -> ExpertIterationSettings:
        if self.keep > self.candidates:
            raise ValueError(f"keep ({self.keep}) must not exceed candidates ({self.candidates})")
        return self


class CrossLoadSettings(Settings):
    """Stage 3: the same weights in another injection's forward."""

    injection: str = "input_add"


class PairSettings(Settings):
    """Stage 4a: several candidates for each of `captions`, scored by reward and CLAP, and pairs of those that differ.

    criterion: the score that pairs are chosen by; the paper's is CLAP. pairs: at most so many, those of widest margin.
    per_caption: at most so many of a caption, which share no clip. min_margin: pairs that differ less are left out.
    read_from: a pairs file, or its folder, in the place of candidates of one's own (docs/recipes.md has the format);
    the filters hold for it where it states margins.
    """

    captions: Count = 64
    candidates: Annotated[int, Field(ge=2, le=MOST)] = 4
    criterion: Literal["clap", "reward"] = "clap"
    pairs: Count = 64
    per_caption: Count = 1
    min_margin: NotNegative = 0.0
    read_from: Path | None = None
    seed: Seed = 5000

    @model_validator(mode="after")
    def _can_make_the_pairs(self) -> PairSettings:
        if self.read_from is not None:
            return self
        if self.per_caption > self.candidates // 2:
            raise ValueError(
                f"{self.candidates} candidates make at most {self.candidates // 2} pairs per caption, not "
                f"per_caption ({self.per_caption})"
            )
        if self.pairs > self.captions * self.per_caption:
            raise ValueError(
                f"pairs ({self.pairs}) must not exceed captions x per_caption ({self.captions * self.per_caption})"
            )
        return self


class CrpoSettings(Settings):
    """Stage 4: preference tuning on (winner, loser) pairs against a frozen reference."""

    beta: Positive = 2000.0
    lambda_fm: NotNegative = 1.0
    train: TrainSettings


class NftSettings(Settings):
    """Stage 4, the other way: negative-aware tuning on all candidates by how much better they are than their caption's
    others.

    criterion: the score that counts. advantage: "binary" asks whether a candidate is above the mean of its caption's,
    "reward" by how much, in units of `temperature`. max_advantage: advantages are held within it.
    """

    beta: Positive = 0.2
    criterion: Literal["reward", "clap"] = "reward"
    advantage: Literal["binary", "reward"] = "reward"
    temperature: Positive = 0.1
    max_advantage: Positive = 1.0
    train: TrainSettings

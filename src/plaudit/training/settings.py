"""Settings of a training pass, of low-rank adapters, and of the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plaudit.settings import MOST, Count, CountOrZero, Fraction, NotNegative, Positive, Seed, Settings


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al., arXiv 2106.09685): W + alpha / rank B A, with B zero at first.

    targets: the linear layers of the blocks that get one, by the last part of their names. Convolutions get none.
    """

    rank: Count = 16
    alpha: Count = 32
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("qkv", "out", "gate_up", "down", "modulation")


class EmaSettings(Settings):
    """The running average of the weights that a pass deploys.

    sigma_rel: its length relative to that of training, with a power-function profile (Karras et al., arXiv 2312.02696).
    decay: in its place, the factor by which an exponential average shrinks at every update, such as 0.999.
    """

    sigma_rel: Annotated[float, Field(gt=0, lt=12**-0.5)] = 0.05
    decay: Annotated[float, Field(ge=0, lt=1)] | None = None


class TrainSettings(Settings):
    """One training pass. `batch` x `accumulate` samples make one update; the learning rate is multiplied by 0.1 at each
    fraction of the steps in `decay_at`, counted from the end of the warm-up. injection_lr_scale: the learning rate of
    the score injection's parameters, relative to that of the others; above 1 where a model that was trained without
    scores gets a new injection. adam_eps: AdamW's epsilon. weights: what the pass leaves, the weights after the last
    update (raw) or their running average (`ema`). lora: train adapters, which are merged into the weights at the end.
    """

    steps: CountOrZero
    learning_rate: Positive
    batch: Count = 32
    accumulate: Count = 1
    warmup: CountOrZero = 0
    decay_at: tuple[Fraction, ...] = ()
    injection_lr_scale: Positive = 1.0
    adam_eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-6
    max_grad_norm: Positive = 1.0
    checkpoint_every: Count = 100
    seed: Seed = 0
    weights: Literal["raw", "ema"] = "ema"
    ema: EmaSettings = Field(default_factory=EmaSettings)
    lora: LoraSettings | None = None


class LoopSettings(Settings):
    """The execution of training, the same for every stage. The weights don't depend on it, but for rounding, so that
    a run can be continued under other settings.

    strategy: with several processes, "ddp" replicates the model, "fsdp" shards weights, averages and optimizer.
    activation_checkpointing, compile: of the network's blocks.
    prefetch, loader_threads: batches prepared ahead, and the threads that prepare them.
    keep_checkpoints: how many of the latest are kept. snapshot_every: updates between snapshots of the running
    averages. sample_every, sample_prompts: updates between sample clips, and their prompts. validate_every,
    validation_clips: updates between losses on held-out clips. Both are of the weights that the pass would leave. 0 is
    never.
    trackers: where metrics go beside `metrics.jsonl`; needs the `track` extra.
    max_loss_ratio: training stops when the loss exceeds the recent median by this factor.
    peak_tflops: of one device, for MFU, where it is not in the built-in table.
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

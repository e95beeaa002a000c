"""Training of TuneJury's head on votes: a Bradley-Terry likelihood over differences of scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from plaudit.errors import VoteError
from plaudit.reward.features import PUBLISHED_BLOCKS
from plaudit.reward.head import PUBLISHED_HIDDEN, TuneJuryHead
from plaudit.reward.metrics import calibrate_temperature


@dataclass(frozen=True)
class Comparisons:
    """Votes as the head sees them: features of both sides [N, D] and target [N], 1 for A, 0 for B, 0.5 for a tie."""

    a: Tensor
    b: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class RewardSettings:
    """What the head sees and how it is trained. The defaults are TuneJury's; `batch_size` counts pairs.

    blocks: the features it is trained on, as RewardFeatures names them.
    output_scale (ours): what the network's output is multiplied by; Kaiming by fan out starts a layer of one output
    so loud that, at 1, the first epochs only quieten it.
    standardize (ours): inputs are brought to zero mean and unit variance by the training set's statistics.
    calibrate (ours): scores are scaled so that validation margins are calibrated log-odds.
    """

    blocks: tuple[str, ...] = PUBLISHED_BLOCKS
    hidden: tuple[int, ...] = PUBLISHED_HIDDEN
    dropout: float = 0.5
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    batch_size: int = 32
    patience: int = 30
    max_epochs: int = 500
    output_scale: float = 1.0
    standardize: bool = False
    calibrate: bool = False
    seed: int = 0


PUBLISHED_REWARD = RewardSettings()
"""TuneJury's (arXiv 2606.17006): some 17,500 votes, raw features, no calibration."""

EMBEDDED_REWARD = RewardSettings(
    blocks=(*PUBLISHED_BLOCKS, "clap_match"),
    hidden=(256, 128),
    dropout=0.3,
    learning_rate=1e-3,
    batch_size=256,
    patience=8,
    max_epochs=60,
    standardize=True,
    calibrate=True,
)
"""The embedded world's: some 10,000 votes on 800 features, learned in about a minute on one core (ours)."""

PRESETS = {"published": PUBLISHED_REWARD, "embedded": EMBEDDED_REWARD}
"""Settings by the name that commands know them by."""


@dataclass(frozen=True)
class RewardEpoch:
    """Mean losses per vote of one pass over the training votes and, after it, over the validation votes."""

    epoch: int
    train_loss: float
    validation_loss: float


@dataclass
class RewardHistory:
    """All epochs of a training, and which of them the head was kept from."""

    epochs: list[RewardEpoch] = field(default_factory=list)
    best_epoch: int = 0


def preference_loss(score_a: Tensor, score_b: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(score(A) - score(B)) against the target; mean over pairs."""
    return functional.binary_cross_entropy_with_logits(score_a - score_b, target)


def margins(head: TuneJuryHead, comparisons: Comparisons, batch_size: int = 4096) -> Tensor:
    """score(A) - score(B) [N] of a head in evaluation mode."""
    chunks = range(0, len(comparisons), batch_size)
    with torch.no_grad():
        parts = [head(comparisons.a[i : i + batch_size]) - head(comparisons.b[i : i + batch_size]) for i in chunks]
    return torch.cat(parts)


def train_reward(
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
) -> tuple[TuneJuryHead, RewardHistory]:
    """Fit a head to `train`, keeping the epoch of least validation loss; the same seed gives the same weights.

    Stops `patience` epochs after the best one. The score is only defined up to a constant: it is chosen so that the
    mean score of the training clips is zero (ours). Returns the head in evaluation mode. VoteError for no votes.
    """
    if len(train) < 2 or len(validation) == 0:
        raise VoteError(f"{len(train)} training and {len(validation)} validation votes are too few; collect more")
    # Dropout draws from the global generator alone, so that one is seeded here and given back untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        head = TuneJuryHead(train.a.shape[1], settings.hidden, settings.dropout, generator)
        head.scale.fill_(settings.output_scale)
        if settings.standardize:
            _standardize(head, train)
        history = _fit(head, train, validation, settings, generator, progress)
    head.eval()
    if settings.calibrate:
        temperature = calibrate_temperature(margins(head, validation), validation.target)
        head.scale.div_(temperature)
    head.offset.copy_(_mean_output(head, train))
    return head, history


def _fit(
    head: TuneJuryHead,
    train: Comparisons,
    validation: Comparisons,
    settings: RewardSettings,
    generator: torch.Generator,
    progress: Callable[[RewardEpoch], None] | None,
) -> RewardHistory:
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    history, best_loss, best_state = RewardHistory(), math.inf, copy.deepcopy(head.state_dict())
    for epoch in range(1, settings.max_epochs + 1):
        head.train()
        total = 0.0
        for rows in _batches(len(train), settings.batch_size, generator):
            # One forward for both sides: batch normalization must not tell A from B.
            score_a, score_b = head(torch.cat([train.a[rows], train.b[rows]])).chunk(2)
            loss = preference_loss(score_a, score_b, train.target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        head.eval()
        validation_margins = margins(head, validation)
        validation_loss = preference_loss(validation_margins, torch.zeros_like(validation_margins), validation.target)
        if not math.isfinite(validation_loss.item()):
            raise VoteError("training of the reward diverged; check the features for NaN or lower learning_rate")
        history.epochs.append(RewardEpoch(epoch, total / len(train), validation_loss.item()))
        if progress is not None:
            progress(history.epochs[-1])
        if validation_loss.item() < best_loss:
            best_loss, history.best_epoch = validation_loss.item(), epoch
            best_state = copy.deepcopy(head.state_dict())
        elif epoch - history.best_epoch >= settings.patience:
            break
    head.load_state_dict(best_state)
    return history


def _batches(size: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """All rows once, shuffled, in batches of almost equal size, since batch statistics of a small rest are poor."""
    order = torch.randperm(size, generator=generator)
    return list(torch.tensor_split(order, math.ceil(size / batch_size)))


def _standardize(head: TuneJuryHead, train: Comparisons) -> None:
    """Give the head the mean and standard deviation of its inputs; a constant input keeps its scale."""
    both = torch.cat([train.a, train.b])
    std = both.std(0)
    head.input_mean.copy_(both.mean(0))
    head.input_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))


def _mean_output(head: TuneJuryHead, train: Comparisons) -> Tensor:
    """Mean of the network's output over both sides of the training votes, before offset and scale."""
    with torch.no_grad():
        chunks = [side[i : i + 4096] for side in (train.a, train.b) for i in range(0, len(train), 4096)]
        scores = torch.cat([head(chunk) for chunk in chunks])
    return scores.mean() / head.scale + head.offset

"""Cross-validation of a reward: each vote is predicted once, by a head that saw no vote on its prompt.

A single split of a few hundred votes holds out some thirty of them, whose accuracy says little. Here every vote is
held out once, and the reward that is kept is trained on all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from plaudit.reporting import Progress
from plaudit.reward.features import FeatureStore, RewardFeatures
from plaudit.reward.training import (
    TARGETS,
    RewardMetrics,
    RewardSettings,
    chance_signs,
    comparisons,
    correct,
    finished_reward,
    margins,
    reward_metrics,
    train_head,
    train_head_without_validation,
)
from plaudit.reward.tunejury import TuneJury, TuneJuryHead, save_reward
from plaudit.reward.votes import VoteFolds, fold_votes
from plaudit.statistics import Array, Interval, bootstrap_ratio
from plaudit.storage import write_json
from plaudit.types import Vote

FOLDS = 10
"""Folds by default: each head is trained on eight tenths of the votes, stopped by one, and predicts one (ours)."""


@dataclass(frozen=True)
class CrossValidation:
    """Accuracy on votes that were held out, each once; intervals are 95 % bootstrap over groups of votes.

    groups: of votes that share a prompt or, where possible, a clip; no group is in two folds. votes: those that prefer
    one side. baseline: the accuracy of another reward on the same votes; difference: accuracy minus that, paired.
    note: what held-out votes share with training votes where that could not be avoided; or "".
    """

    folds: int
    groups: int
    votes: int
    accuracy: Interval
    baseline: Interval | None
    difference: Interval | None
    note: str


@dataclass(frozen=True)
class CrossValidatedReward:
    """A reward that was trained on all votes for so many epochs, and how well heads that were trained in the same way
    predict votes that they were not trained on."""

    reward: TuneJury
    epochs: int
    metrics: RewardMetrics
    cross_validation: CrossValidation

    @property
    def chance_signs(self) -> list[str]:
        """Evidence that it predicts held-out votes no better than chance, a phrase each."""
        return chance_signs(self.metrics, self.metrics.loss)

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "better_than_chance": not self.chance_signs,
            "epochs": self.epochs,
            "cross_validation": asdict(self.cross_validation),
            "metrics": asdict(self.metrics),
        }

    def save(self, folder: Path, record: dict[str, Any], clap: str, audio: str) -> None:
        """Write the reward, and `record` as training.json. clap, audio: the names that its encoders are loaded by."""
        self.reward.facts.update(self.to_dict())
        write_json(folder / "training.json", record)
        save_reward(self.reward, folder, clap, audio)


def cross_validated_reward(
    votes: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    folds: int = FOLDS,
    start: TuneJuryHead | None = None,
    baseline: ArrayLike | None = None,
    progress: Progress | None = None,
) -> CrossValidatedReward:
    """Cross-validate a training and then train on all `votes`, whose clips must be usable and in `store`.

    Of `folds` parts of the votes (fewer where there are fewer prompts), each in turn is predicted by a head that is
    trained on the others, of which the following part decides when to stop, and calibrates. The reward itself has no
    such part: it is trained for the median of their epochs, and calibrated by the mean of their temperatures.

    start: a head to train further, whose own training must not have included these votes. baseline: margins [votes] of
    a reward to compare with. progress(done, total) counts epochs.
    """
    features = RewardFeatures(store.features.clap, store.features.audio_encoder, settings.blocks, settings.clap_through)
    parts = fold_votes(votes, folds, settings.seed)
    data = comparisons(votes, store, features)
    total = (parts.count + 1) * settings.max_epochs

    def report(training: int, epoch: int) -> None:
        if progress is not None:
            progress(training * settings.max_epochs + epoch, total)

    predicted = torch.empty(len(data))
    epochs, temperatures = [], []
    for fold in range(parts.count):
        held_out, stopping = parts.of_votes == fold, parts.of_votes == (fold + 1) % parts.count
        fitting = ~(held_out | stopping)
        head, history = train_head(
            data.take(fitting),
            data.take(stopping),
            settings,
            lambda epoch, fold=fold: report(fold, epoch.epoch),  # type: ignore[misc]
            start,
        )
        predicted[torch.from_numpy(held_out)] = margins(head, data.take(held_out))
        epochs.append(history.best_epoch)
        temperatures.append(history.temperature)
    chosen = round(statistics.median(epochs))
    head = train_head_without_validation(
        data,
        chosen,
        statistics.geometric_mean(temperatures),
        settings,
        lambda epoch: report(parts.count, epoch),
        start,
    )
    report(parts.count, settings.max_epochs)
    cross_validation = _figures(predicted, data.target, parts, baseline, settings.seed)
    metrics = replace(
        reward_metrics(predicted, data.target, settings.seed, settings.even_bins),
        accuracy_interval=(cross_validation.accuracy.low, cross_validation.accuracy.high),
    )
    reward = finished_reward(head, features, data, settings, {"votes": {"train": len(data)}})
    return CrossValidatedReward(reward, chosen, metrics, cross_validation)


def _figures(
    predicted: Tensor, targets: Tensor, parts: VoteFolds, baseline: ArrayLike | None, seed: int
) -> CrossValidation:
    decided = targets.numpy() != TARGETS["tie"]
    groups, owners = np.unique(parts.groups[decided], return_inverse=True)
    counts = np.bincount(owners).astype(np.float64)

    def interval(values: Array, low: float = 0.0) -> Interval:
        return bootstrap_ratio(np.bincount(owners, values), counts, seed, bounds=(low, 1.0))

    right = correct(predicted, targets)
    others = None if baseline is None else correct(baseline, targets)
    return CrossValidation(
        folds=parts.count,
        groups=len(groups),
        votes=int(decided.sum()),
        accuracy=interval(right),
        baseline=None if others is None else interval(others),
        difference=None if others is None else interval(right - others, -1.0),
        note=parts.note,
    )

"""The same training from several seeds: how far its figures spread, and the reward that validation prefers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from plaudit.errors import VoteError
from plaudit.reward.fit import FittedReward, fit_reward
from plaudit.reward.store import FeatureStore
from plaudit.reward.training import RewardEpoch, RewardSettings
from plaudit.types import Vote


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (over n - 1; zero for one value) of a figure over seeds."""

    mean: float
    std: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of a figure [number of seeds]."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class SeededRewards:
    """One fitted reward per seed, and the seed whose validation loss is least."""

    fitted: dict[int, FittedReward]
    best_seed: int

    @property
    def best(self) -> FittedReward:
        """The reward to keep. Test votes have no say in it."""
        return self.fitted[self.best_seed]

    @property
    def accuracy(self) -> Spread:
        """Of the accuracy on test votes."""
        return spread([fitted.metrics.accuracy for fitted in self.fitted.values()])

    @property
    def calibration_error(self) -> Spread:
        """Of the calibration error on test votes."""
        return spread([fitted.metrics.calibration_error for fitted in self.fitted.values()])


def fit_seeds(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    seeds: Sequence[int],
    progress: Callable[[int, RewardEpoch], None] | None = None,
) -> SeededRewards:
    """fit_reward once per seed; progress(seed, epoch). VoteError for no seed or one given twice."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise VoteError(f"seeds {list(seeds)} must be one or more different numbers")

    def told(seed: int) -> Callable[[RewardEpoch], None] | None:
        return None if progress is None else lambda epoch: progress(seed, epoch)

    fitted = {
        seed: fit_reward(train, validation, test, store, replace(settings, seed=seed), told(seed)) for seed in seeds
    }
    return SeededRewards(fitted, min(fitted, key=lambda seed: fitted[seed].validation_loss))

"""From votes and clip features to a TuneJury with its figures on held-out votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from plaudit.errors import VoteError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.metrics import CHANCE_LOSS, RewardMetrics, reward_metrics
from plaudit.reward.scorer import TuneJury
from plaudit.reward.store import FeatureStore
from plaudit.reward.training import (
    Comparisons,
    RewardEpoch,
    RewardHistory,
    RewardSettings,
    margins,
    preference_loss,
    train_reward,
)
from plaudit.types import Vote

TARGETS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""What a vote's winner means to the loss."""


def comparisons(votes: Sequence[Vote], store: FeatureStore, features: RewardFeatures | None = None) -> Comparisons:
    """The votes whose clips are both in `store`; one that names a quarantined clip is left out.

    features: what the head sees of what was extracted; by default all of it. VoteError where no vote is left;
    CorpusError for a clip that was never extracted.
    """
    usable = usable_votes(votes, store)
    features = features or store.features
    columns = features.columns_of(store.features)
    prompts = [vote.prompt for vote in usable]
    a, b = (
        features.with_prompts(store.rows(side)[:, columns], prompts)
        for side in ([vote.a for vote in usable], [vote.b for vote in usable])
    )
    return Comparisons(a, b, torch.tensor([TARGETS[vote.winner] for vote in usable]))


def usable_votes(votes: Sequence[Vote], store: FeatureStore) -> list[Vote]:
    """The votes that name no quarantined clip, in their order; VoteError where none is left."""
    unusable = store.quarantine
    usable = [vote for vote in votes if vote.a not in unusable and vote.b not in unusable]
    if not usable:
        raise VoteError(f"none of {len(votes)} votes compares two usable clips; check their audio")
    return usable


@dataclass(frozen=True)
class FittedReward:
    """A trained reward, how its training went, and its figures on votes it never saw.

    validation_loss: of the finished head, calibration included; what several seeds are chosen by.
    """

    jury: TuneJury
    history: RewardHistory
    metrics: RewardMetrics
    validation_loss: float

    @property
    def chance_signs(self) -> list[str]:
        """What says that it predicts held-out votes no better than chance, a phrase each; empty where nothing does."""
        signs, metrics = [], self.metrics
        if metrics.accuracy_low <= 0.5:
            interval = f"{metrics.accuracy_low:.3f} to {metrics.accuracy_interval[1]:.3f}"
            signs.append(f"accuracy {metrics.accuracy:.3f} on {metrics.decided} votes, 95 % interval {interval}")
        if self.validation_loss >= CHANCE_LOSS:
            signs.append(f"validation loss {self.validation_loss:.3f}, that of a coin is {CHANCE_LOSS:.3f}")
        return signs


def fit_reward(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
) -> FittedReward:
    """Train on `train`, stop and calibrate on `validation`, report on `test`; all clips must be in `store`.

    settings.blocks may be any whose clip features the store holds. VoteError where one of the three is all ties.
    """
    features = RewardFeatures(store.features.clap, store.features.listener, settings.blocks)
    seen, stopping, held_out = (comparisons(votes, store, features) for votes in (train, validation, test))
    for name, part in (("training", seen), ("validation", stopping), ("test", held_out)):
        if not (part.target != TARGETS["tie"]).any():
            raise VoteError(f"all of the {len(part)} {name} votes are ties; give votes that prefer one side")
    head, history = train_reward(seen, stopping, settings, progress)
    metrics = reward_metrics(margins(head, held_out), held_out.target, settings.seed)
    gaps = margins(head, stopping)
    validation_loss = preference_loss(gaps, torch.zeros_like(gaps), stopping.target).item()
    with torch.inference_mode():
        scores = torch.cat([head(side[i : i + 4096]) for side in (seen.a, seen.b) for i in range(0, len(seen), 4096)])
    facts = {
        "settings": asdict(settings),
        "votes": {"train": len(seen), "validation": len(stopping), "test": len(held_out)},
        "train_scores": {"mean": scores.mean().item(), "std": scores.std().item()},
        "best_epoch": history.best_epoch,
        "metrics": asdict(metrics),
    }
    return FittedReward(TuneJury(head, features, facts), history, metrics, validation_loss)

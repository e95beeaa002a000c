"""From votes and clip features to a TuneJury with its figures on held-out votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from plaudit.errors import ModelError, VoteError
from plaudit.reward.metrics import RewardMetrics, reward_metrics
from plaudit.reward.scorer import TuneJury
from plaudit.reward.store import FeatureStore
from plaudit.reward.training import Comparisons, RewardEpoch, RewardHistory, RewardSettings, margins, train_reward
from plaudit.types import Vote

_TARGETS = {"a": 1.0, "b": 0.0, "tie": 0.5}


def comparisons(votes: Sequence[Vote], store: FeatureStore) -> Comparisons:
    """The votes whose clips are both in `store`; one that names a quarantined clip is left out.

    VoteError where no vote is left; CorpusError for a clip that was never extracted.
    """
    unusable = store.quarantine
    usable = [vote for vote in votes if vote.a not in unusable and vote.b not in unusable]
    if not usable:
        raise VoteError(f"none of {len(votes)} votes compares two usable clips; check their audio")
    prompts = [vote.prompt for vote in usable]
    return Comparisons(
        a=store.features.with_prompts(store.rows([vote.a for vote in usable]), prompts),
        b=store.features.with_prompts(store.rows([vote.b for vote in usable]), prompts),
        target=torch.tensor([_TARGETS[vote.winner] for vote in usable]),
    )


@dataclass(frozen=True)
class FittedReward:
    """A trained reward, how its training went, and its figures on votes it never saw."""

    jury: TuneJury
    history: RewardHistory
    metrics: RewardMetrics


def fit_reward(
    train: Sequence[Vote],
    validation: Sequence[Vote],
    test: Sequence[Vote],
    store: FeatureStore,
    settings: RewardSettings,
    progress: Callable[[RewardEpoch], None] | None = None,
) -> FittedReward:
    """Train on `train`, stop and calibrate on `validation`, report on `test`; all clips must be in `store`."""
    if settings.blocks != store.features.blocks:
        raise ModelError(f"the reward is to see {settings.blocks}, but {store.features.blocks} were extracted; use one")
    seen, stopping, held_out = (comparisons(votes, store) for votes in (train, validation, test))
    head, history = train_reward(seen, stopping, settings, progress)
    metrics = reward_metrics(margins(head, held_out), held_out.target, settings.seed)
    with torch.inference_mode():
        scores = torch.cat([head(side[i : i + 4096]) for side in (seen.a, seen.b) for i in range(0, len(seen), 4096)])
    facts = {
        "settings": asdict(settings),
        "votes": {"train": len(seen), "validation": len(stopping), "test": len(held_out)},
        "train_scores": {"mean": scores.mean().item(), "std": scores.std().item()},
        "best_epoch": history.best_epoch,
        "metrics": asdict(metrics),
    }
    return FittedReward(TuneJury(head, store.features, facts), history, metrics)

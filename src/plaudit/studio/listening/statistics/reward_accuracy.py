"""How often a reward prefers the clip that listeners preferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.reward.leaderboard import RESAMPLES
from plaudit.statistics import Interval, bootstrap_ratio
from plaudit.studio.listening.statistics.answers import Answer, by_listener


@dataclass(frozen=True)
class RewardAccuracy:
    """How a reward's preferences compare with the votes: accuracy on those that prefer one clip, with an interval over
    listeners, and on how many."""

    accuracy: Interval | None
    votes: int


def reward_accuracy(answers: Sequence[Answer], score: Callable[[str], float | None], seed: int = 0) -> RewardAccuracy:
    """score: the reward of a clip, None where it has none. Equal rewards are half right."""
    scored = []
    for x in answers:
        a, b = score(x.a), score(x.b)
        if x.winner in ("a", "b") and a is not None and b is not None:
            scored.append((x.listener, 0.5 if a == b else float((a > b) == (x.winner == "a"))))
    return RewardAccuracy(bootstrap_ratio(*by_listener(scored), seed, RESAMPLES) if scored else None, len(scored))

"""Win rates between two systems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.reward.leaderboard import RESAMPLES
from plaudit.statistics import Interval, bootstrap_ratio
from plaudit.studio.listening.statistics.answers import Answer, by_listener, scores_of


@dataclass(frozen=True)
class PairRecord:
    """Answers between two systems; rate: the share won by `first`, a tie counting half, None without such answers."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    both_bad: int
    rate: Interval | None


def win_rates(answers: Sequence[Answer], seed: int = 0, resamples: int = RESAMPLES) -> list[PairRecord]:
    """Each two systems that were compared, with bootstrap intervals over listeners."""
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for x in answers:
        groups[min(x.system_a, x.system_b), max(x.system_a, x.system_b)].append(x)
    records = []
    for (first, second), group in sorted(groups.items()):
        outcome = Counter(
            x.winner if x.winner in ("tie", "both_bad") else x.system_a if x.winner == "a" else x.system_b
            for x in group
        )
        scored = scores_of(group, first)
        rate = bootstrap_ratio(*by_listener(scored), seed, resamples) if scored else None
        records.append(
            PairRecord(first, second, outcome[first], outcome[second], outcome["tie"], outcome["both_bad"], rate)
        )
    return records

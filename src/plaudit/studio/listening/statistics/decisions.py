"""Which comparisons of two systems are decided while votes come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plaudit.statistics import POWER, Interval, prompts_needed
from plaudit.studio.listening.statistics.answers import Answer, scores_of
from plaudit.studio.listening.statistics.confidence import ALPHA, HORIZON, confidence_sequence
from plaudit.studio.listening.statistics.votes_needed import MOST_VOTES, votes_needed

Verdict = Literal["first", "second", "equivalent", "open"]

MARGIN = 0.1
"""The least difference of a win rate from one half that is asked about by default (ours): 60 % against 40 %."""


@dataclass(frozen=True)
class Decision:
    """The comparison of two systems at this moment, valid whenever and however often it is looked at.

    rate: the share of votes that `first` wins, ties counting half, with the interval of its confidence sequence.
    verdict: which one is better; "equivalent" where the interval lies within the margin about one half; else "open".
    needed: how many more votes until it is decided with the power asked for, if the rate stays as it is; zero where it
    is decided, None where no number that is worth collecting would do, or nothing is known yet.
    planned: votes that a test of a fixed number would need for a difference of the margin.
    """

    first: str
    second: str
    votes: int
    listeners: int
    rate: Interval
    verdict: Verdict
    needed: int | None
    planned: int

    @property
    def about(self) -> Literal["listeners", "one listener"]:
        """Whom it is about: people like these listeners, or, where only one has voted, that listener alone."""
        return "listeners" if self.listeners > 1 else "one listener"


def decide(
    answers: Sequence[Answer],
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    power: float = POWER,
    horizon: int = HORIZON,
) -> list[Decision]:
    """The state of each comparison of two systems: those given, or all that have answers.

    Read together, so that alpha is divided among them (Bonferroni). Only direct comparisons of the two count.
    """
    if not 0 < margin < 0.5:
        raise ValueError(f"the margin is a difference of a win rate from one half, above 0 and below 0.5, not {margin}")
    if not 0 < power < 1:
        raise ValueError(f"power is above 0 and below 1, not {power}")
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for x in answers:
        groups[min(x.system_a, x.system_b), max(x.system_a, x.system_b)].append(x)
    compared = sorted(groups) if pairs is None else list(pairs)
    alpha = ALPHA / max(1, len(compared))
    return [
        _decision(first, second, scores_of(groups[min(first, second), max(first, second)], first), margin, power, alpha,
                  horizon)
        for first, second in compared
    ]  # fmt: skip


def _decision(
    first: str, second: str, scored: list[tuple[str, float]], margin: float, power: float, alpha: float, horizon: int
) -> Decision:
    rate = confidence_sequence(scored, alpha, horizon)
    verdict: Verdict = "open"
    if rate.low > 0.5 or rate.high < 0.5:
        verdict = "first" if rate.low > 0.5 else "second"
    elif rate.low > 0.5 - margin and rate.high < 0.5 + margin:
        verdict = "equivalent"
    planned = prompts_needed(margin / 0.5, power, alpha) or MOST_VOTES  # a vote without ties has a deviation of 1/2
    return Decision(
        first=first,
        second=second,
        votes=len(scored),
        listeners=len({listener for listener, _ in scored}),
        rate=rate,
        verdict=verdict,
        needed=0 if verdict != "open" else votes_needed(scored, margin, power, alpha, horizon),
        planned=planned,
    )

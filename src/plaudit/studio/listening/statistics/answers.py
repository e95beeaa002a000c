"""Answers of a listening test, those that count for results, and scores of a system by listener."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plaudit.statistics import Array

Winner = Literal["a", "b", "tie", "both_bad"]


PairKind = Literal["regular", "repeat", "obvious", "practice"]


@dataclass(frozen=True)
class Answer:
    """One listener's answer about clips `a` and `b` of a prompt.

    id: the vote's. expected: the right answer of an obvious pair. swapped: `a` was on the right. response_ms: from the
    moment both sides could be played to the vote; listened_a and listened_b are seconds.
    """

    listener: str
    id: str
    prompt: str
    a: str
    b: str
    system_a: str
    system_b: str
    winner: Winner
    kind: PairKind = "regular"
    swapped: bool = False
    expected: Literal["a", "b"] | None = None
    listened_a: float | None = None
    listened_b: float | None = None
    response_ms: float | None = None

    @property
    def clips(self) -> tuple[str, str]:
        """Both clips, in an order that does not depend on the sides."""
        return (self.a, self.b) if self.a <= self.b else (self.b, self.a)

    @property
    def value(self) -> float:
        """The answer about `clips`: 1 where the first is better, 0 where the second is, 0.5 for a tie; NaN for both
        bad."""
        value = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": math.nan}[self.winner]
        return value if self.a <= self.b else 1.0 - value


def counted(answers: Iterable[Answer], excluded: Iterable[str] = ()) -> list[Answer]:
    """The answers that count for results: of regular pairs between two systems, by listeners who are not excluded, the
    first of each listener about two clips."""
    out, seen, left = [], set(), set(excluded)
    for answer in answers:
        key = (answer.listener, answer.clips)
        if answer.kind == "regular" and answer.system_a != answer.system_b and answer.listener not in left:
            if key not in seen:
                out.append(answer)
            seen.add(key)
    return out


def scores_of(answers: Iterable[Answer], first: str) -> list[tuple[str, float]]:
    """Listener and score of `first`: 1 for a win, 0.5 for a tie; both bad left out."""
    value = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return [
        (x.listener, value[x.winner] if x.system_a == first else 1.0 - value[x.winner])
        for x in answers
        if x.winner != "both_bad"
    ]


def by_listener(scored: Iterable[tuple[str, float]]) -> tuple[Array, Array]:
    """Sums and counts of each listener's scores; each vote by itself where there is only one listener."""
    pairs = list(scored)
    if len({listener for listener, _ in pairs}) < 2:
        return np.array([value for _, value in pairs]), np.ones(len(pairs))
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for listener, value in pairs:
        sums[listener] += value
        counts[listener] += 1
    return np.array(list(sums.values())), np.array(list(counts.values()), dtype=np.float64)

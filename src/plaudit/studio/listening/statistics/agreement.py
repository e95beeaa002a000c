"""How much listeners agree with each other about the same pairs, and with themselves in hidden repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from plaudit.reward.leaderboard import RESAMPLES
from plaudit.statistics import Array, Interval, bootstrap_mean, bootstrap_ratio
from plaudit.studio.listening.statistics.answers import Answer, by_listener


def krippendorff_alpha(
    values: ArrayLike, metric: Literal["nominal", "ordinal", "interval"] = "nominal"
) -> float | None:
    """Krippendorff's alpha of values [coders, units], NaN where a coder gave none (Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011).

    1: perfect agreement, 0: that of chance. None where no unit has two values, or all values are the same.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"alpha needs coders by units, not shape {table.shape}")
    known = np.isfinite(table)
    pairable = known.sum(0) >= 2
    table, known = table[:, pairable], known[:, pairable]
    if not table.size:
        return None
    levels, codes = np.unique(table[known], return_inverse=True)
    counts = np.zeros((table.shape[1], len(levels)))  # of each level in each unit
    np.add.at(counts, (np.nonzero(known)[1], codes), 1.0)
    coincidences = (counts[:, :, None] * (counts[:, None, :] - np.eye(len(levels)))) / (
        counts.sum(1)[:, None, None] - 1
    )
    observed = coincidences.sum(0)
    marginal = observed.sum(1)
    distance = _distances(levels, marginal, metric)
    total = marginal.sum()
    expected = (np.outer(marginal, marginal) - np.diag(marginal)) / (total - 1)
    disagreement = (expected * distance).sum()
    return float(1 - (observed * distance).sum() / disagreement) if disagreement > 0 else None


def _distances(levels: Array, marginal: Array, metric: str) -> Array:
    if metric == "nominal":
        return 1.0 - np.eye(len(levels))
    if metric == "interval":
        return np.asarray((levels[:, None] - levels[None, :]) ** 2)
    if metric != "ordinal":
        raise ValueError(f"a metric is nominal, ordinal or interval, not {metric!r}")
    middle = np.cumsum(marginal) - marginal / 2  # mean rank of each level
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)


@dataclass(frozen=True)
class Agreement:
    """How much listeners agree about the same pairs.

    alpha: ordinal Krippendorff's alpha of a < tie < b, both bad left out, whichever clip is called a; None where no
    pair has two answers. agreeing: of two listeners' answers about a pair, neither of which is a tie, the fraction that
    is the same, with its interval over pairs; what a reward's accuracy on these votes is to be compared with.
    pairs: how many have at least two answers.
    """

    alpha: float | None
    agreeing: Interval | None
    pairs: int


def listener_agreement(answers: Sequence[Answer], seed: int = 0) -> Agreement:
    """Agreement about pairs of clips that several listeners compared."""
    pairs = sorted({x.clips for x in answers})
    listeners = sorted({x.listener for x in answers})
    row, column = ({name: k for k, name in enumerate(names)} for names in (listeners, pairs))
    table = np.full((len(listeners), len(pairs)), np.nan)
    for x in reversed(answers):  # the first answer of a listener stands
        table[row[x.listener], column[x.clips]] = x.value
    # Which clip is first is arbitrary: each pair also counts mirrored, so that the answer does not change alpha (ours).
    alpha = krippendorff_alpha(np.concatenate([table, 1.0 - table], axis=1), "ordinal") if answers else None
    first, second = (table == 1.0).sum(0), (table == 0.0).sum(0)
    decided = first + second
    both = decided >= 2
    same = (first * (first - 1) + second * (second - 1))[both] / (decided * (decided - 1))[both]
    several = int((np.isfinite(table).sum(0) >= 2).sum())
    return Agreement(alpha, bootstrap_mean(same, seed) if both.any() else None, several)


def repeat_agreement(answers: Sequence[Answer], seed: int = 0) -> tuple[dict[str, tuple[int, int]], Interval | None]:
    """Hidden repeats answered the same: by listener (same, repeats), and over all with an interval over listeners.

    A repeat is an answer about two clips that the listener compared before, whichever the sides.
    """
    first: dict[tuple[str, tuple[str, str]], Answer] = {}
    counts: dict[str, tuple[int, int]] = {}
    scored = []
    for x in answers:
        if x.kind in ("obvious", "practice"):
            continue
        before = first.setdefault((x.listener, x.clips), x)
        if before is not x:
            same = before.value == x.value or before.winner == x.winner == "both_bad"
            right, total = counts.get(x.listener, (0, 0))
            counts[x.listener] = right + same, total + 1
            scored.append((x.listener, float(same)))
    return counts, bootstrap_ratio(*by_listener(scored), seed, RESAMPLES) if scored else None

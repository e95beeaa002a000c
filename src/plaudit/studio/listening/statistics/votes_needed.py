"""How many more votes it takes until a comparison is decided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats
from scipy.optimize import brentq

from plaudit.studio.listening.statistics.confidence import ALPHA, HORIZON, mean_and_error, student_boundary

MOST_VOTES = 100_000
"""Where more would be needed, the answer is that no number of votes is enough (ours)."""


def votes_needed(
    scored: Sequence[tuple[str, float]], margin: float, power: float, alpha: float = ALPHA, horizon: int = HORIZON
) -> int | None:
    """How many more votes until the confidence sequence excludes one half, or lies within the margin about it,
    whichever is sooner, with probability `power`, if rate, spread and votes per listener stay as they are.

    None without votes, or where it is more than MOST_VOTES.
    """
    if len(scored) < 2:
        return None
    mean, error, freedom = mean_and_error(scored)
    votes = len(scored)
    per_vote = error * math.sqrt(votes)
    away = abs(mean - 0.5)
    distance = max(away, margin - away)
    slack = float(stats.norm.ppf(power))

    def short(total: float) -> float:
        later = max(1.0, freedom * total / votes)
        return (student_boundary(total, later, alpha, horizon) + slack) * per_vote / math.sqrt(total) - distance

    if short(MOST_VOTES) > 0:
        return None
    if short(votes) <= 0:
        return 1  # the next vote can decide it
    return max(1, math.ceil(brentq(short, votes, MOST_VOTES)) - votes)

"""How long a piece of work still takes, judged by the pace of what was done of late."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 0.1
"""Steps closer together than this share of the longest wait between steps came as one batch (ours)."""

_WINDOW = 10
"""Batches that the pace is taken over (ours): enough to even out, few enough to follow a change."""


_LEAST = 2.0
"""Seconds that work is watched for at least (ours): before that, what was done in an earlier run is passed over."""

_KEPT = 4096
"""Steps that are remembered."""


@dataclass(frozen=True)
class _Mark:
    """When a step was done, and how many were done by then."""

    end: float
    done: int


class TimeLeft:
    """Estimates the time left from when steps are done; says nothing as long as that tells nothing.

    Work starts slowly (models are loaded), comes in batches whose steps are all done at once, and often begins with
    steps that were done before. So the pace is that between whole batches, without the wait before the first; and it
    takes at least two of them, watched for as long as that wait was.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._marks: deque[_Mark] = deque(maxlen=_KEPT)
        self._restart()

    def update(self, done: int, total: int) -> None:
        """So many of `total` steps are done now; fewer than before means that other work began."""
        if self._marks and done < self._marks[-1].done:
            self._restart()
        self._total = total
        if done > (self._marks[-1].done if self._marks else 0):
            self._marks.append(_Mark(self._clock(), done))
            self._first = self._marks[-1].end if self._first is None else self._first

    def seconds(self) -> float | None:
        """Seconds left; None where there is no basis for an estimate."""
        ends = self._batch_ends()[-_WINDOW:]
        if len(ends) < 2 or self._first is None:
            return None
        if self._marks[-1].end - self._first < max(_LEAST, self._first - self._began):
            return None
        waited = self._clock() - ends[-1].end
        if waited > 3 * max(after.end - before.end for before, after in itertools.pairwise(ends)):
            return None  # the pace has changed, and nobody knows to what
        pace = (ends[-1].end - ends[0].end) / (ends[-1].done - ends[0].done)
        return max(0.0, pace * (self._total - ends[-1].done) - waited)

    def _restart(self) -> None:
        self._began, self._total, self._first = self._clock(), 0, None
        self._marks.clear()

    def _batch_ends(self) -> list[_Mark]:
        """The last steps of batches that are done; the latest counts where it is as large as the one before."""
        pairs = list(itertools.pairwise(self._marks))
        longest = max((after.end - before.end for before, after in pairs), default=0.0)
        ends = [before for before, after in pairs if after.end - before.end > _BURST * longest]
        if not ends:
            return []
        size = ends[-1].done - (ends[-2].done if len(ends) > 1 else 0)
        return [*ends, self._marks[-1]] if self._marks[-1].done - ends[-1].done >= size else ends


def as_text(seconds: float) -> str:
    """A duration in the unit that suits it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""Results of tests while votes come in: computed again as often as their cost allows, and otherwise the last ones.

A page that polls results, or ten, must not take the machine's time away from votes. After results that took a while to
compute, the next of the same test are computed when PAUSE times that has passed, so that computing them takes at most
about a tenth of one core. Results that have to be exact, as those of a closed test, are computed at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from plaudit.studio.listening.results import Computed, Version
from plaudit.studio.lru_cache import LRUCache

TESTS = 16
"""Tests whose last results are kept."""

PAUSE = 9.0
"""How much longer than computing results the pause after it is (ours)."""

MINIMUM_PAUSE = 1.0
"""The shortest pause, in seconds (ours)."""


@dataclass
class _LastResults:
    """The last results of a test. next_at: when newer ones may be computed. lock: held by who computes them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    computed: Computed | None = None
    next_at: float = 0.0


@dataclass(frozen=True)
class ServedResults:
    """Results to show. is_new: they were computed for this request. refresh_after: seconds until newer ones can be had;
    None where these include everything."""

    computed: Computed
    is_new: bool
    refresh_after: float | None


class LiveResults:
    """The last results of each test. compute: computes those of a test; clock: seconds, from any beginning."""

    def __init__(self, compute: Callable[[str], Computed], clock: Callable[[], float] = time.monotonic) -> None:
        self.compute = compute
        self._clock = clock
        self._tests: LRUCache[_LastResults] = LRUCache(TESTS)
        self._lock = threading.Lock()

    def of(self, test_id: str, version: Version, exact: bool = False) -> ServedResults:
        """The results of a test that has this version now; exact: of this version or a later one."""
        with self._lock:
            last = self._tests.get_or_compute(test_id, _LastResults)
        answer = self._without_computing(last, version, exact)
        if answer is not None:
            return answer
        # Who finds nothing to show waits; who finds older results takes them while others compute newer ones.
        if not last.lock.acquire(blocking=exact or last.computed is None):
            assert last.computed is not None
            return ServedResults(last.computed, False, max(MINIMUM_PAUSE, last.computed.seconds))
        try:
            answer = self._without_computing(last, version, exact)  # who had the lock may have computed them
            if answer is not None:
                return answer
            computed = self.compute(test_id)
            last.computed = computed
            last.next_at = self._clock() + max(MINIMUM_PAUSE, PAUSE * computed.seconds)
            return ServedResults(computed, True, None)
        finally:
            last.lock.release()

    def _without_computing(self, last: _LastResults, version: Version, exact: bool) -> ServedResults | None:
        computed = last.computed
        if computed is None:
            return None
        if computed.version.includes(version):
            return ServedResults(computed, False, None)
        left = last.next_at - self._clock()
        return ServedResults(computed, False, left) if left > 0 and not exact else None

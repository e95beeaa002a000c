"""When results are computed again: by a clock that the test sets, and while others compute them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as some

from plaudit.studio.listening.live_results import MINIMUM_PAUSE, PAUSE, LiveResults
from plaudit.studio.listening.results import Computed, Version


class Test:
    """A test to which votes come, and whose results take a while to compute, by a clock of its own."""

    __test__ = False

    def __init__(self, seconds: float) -> None:
        self.votes, self.now, self.seconds, self.spent = 0, 0.0, seconds, 0.0
        self.results = LiveResults(self.compute, lambda: self.now)

    def compute(self, test: str) -> Computed:
        """Takes `seconds`."""
        version = self.version
        self.now += self.seconds
        self.spent += self.seconds
        return Computed(version, {"votes": version.answers}, self.seconds, "now")

    @property
    def version(self) -> Version:
        """The version of the results now."""
        return Version(self.votes, "settings")


@given(
    seconds=some.floats(0.01, 20),
    polls=some.lists(some.tuples(some.floats(0, 5), some.integers(0, 3), some.booleans()), max_size=60),
)
def test_polls_take_a_tenth_of_the_time_at_most_and_nothing_is_lost(
    seconds: float, polls: list[tuple[float, int, bool]]
) -> None:
    test = Test(seconds)
    spent_exactly = 0.0
    for pause, votes, exact in polls:
        test.now += pause
        test.votes += votes
        before = test.spent
        served = test.results.of("a", test.version, exact)
        if exact:
            spent_exactly += test.spent - before
            assert served.computed.version == test.version
        assert served.is_new == (test.spent > before)
        assert (served.refresh_after is None) == (served.computed.version == test.version)
        if served.refresh_after is not None:
            assert 0 < served.refresh_after <= max(MINIMUM_PAUSE, PAUSE * seconds) + 1e-6
    assert test.spent - spent_exactly <= seconds + test.now / (1 + PAUSE) + 1e-6
    test.now += max(MINIMUM_PAUSE, PAUSE * seconds) + 1e-6
    assert test.results.of("a", test.version).computed.version == test.version


def test_unchanged_results_are_not_computed_again() -> None:
    test = Test(1.0)
    for _ in range(3):
        assert test.results.of("a", test.version, exact=True).refresh_after is None
        test.now += 100
    assert test.spent == 1.0


def test_other_settings_need_other_results() -> None:
    test = Test(1.0)
    test.results.of("a", test.version)
    changed = Version(0, "other settings")
    assert test.results.of("a", changed).refresh_after == pytest.approx(9)
    test.results.of("a", changed, exact=True)
    assert test.spent == 2.0


def test_while_results_are_computed_others_take_the_last_ones() -> None:
    votes, begun, go_on = 0, threading.Semaphore(0), threading.Semaphore(0)

    def compute(test: str) -> Computed:
        at = votes
        begun.release()
        assert go_on.acquire(timeout=10)
        return Computed(Version(at, ""), {}, 0.0, "now")

    clock = 0.0
    results = LiveResults(compute, lambda: clock)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(results.of, "a", Version(0, "")) for _ in range(3)]
        assert begun.acquire(timeout=10)
        assert not any(one.done() for one in waiting), "there is nothing to show yet"
        go_on.release()
        assert sorted(one.result(10).is_new for one in waiting) == [False, False, True]
        votes, clock = 1, 100.0
        newer = pool.submit(results.of, "a", Version(1, ""))
        assert begun.acquire(timeout=10)
        last = results.of("a", Version(1, ""))
        assert (last.computed.version.answers, last.is_new, last.refresh_after) == (0, False, MINIMUM_PAUSE)
        exact = pool.submit(results.of, "a", Version(1, ""), True)
        go_on.release()
        assert newer.result(10).computed.version.answers == exact.result(10).computed.version.answers == 1
        assert not begun.acquire(blocking=False), "the results of the first were exact"


def test_results_that_cannot_be_computed_are_tried_again() -> None:
    failures = [RuntimeError("no")]

    def compute(test: str) -> Computed:
        if failures:
            raise failures.pop()
        return Computed(Version(0, ""), {}, 0.0, "now")

    results = LiveResults(compute)
    with pytest.raises(RuntimeError):
        results.of("a", Version(0, ""))
    assert results.of("a", Version(0, "")).is_new

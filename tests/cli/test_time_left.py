"""Estimates of the time left: near the truth once there is one, and nothing before."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.cli.console import TimeLeft, as_text


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def estimates(waits: list[float], done_before: int = 0) -> Iterator[tuple[float, float | None]]:
    """(true seconds left, estimate) after each step; waits: seconds before it. The first `done_before` take none."""
    clock = Clock()
    left = TimeLeft(clock)
    total, rest = done_before + len(waits), sum(waits)
    for done in range(1, done_before + 1):
        clock.now += 0.001
        left.update(done, total)
        yield rest, left.seconds()
    for number, wait in enumerate(waits, start=1):
        clock.now += wait
        rest -= wait
        left.update(done_before + number, total)
        yield rest, left.seconds()


def batches(count: int, size: int, seconds: float, step: float) -> list[float]:
    return [seconds if step_in == 0 else step for _ in range(count) for step_in in range(size)]


WORK = {
    "steady": ([1.0] * 200, 0),
    "slow start": ([60.0] + [1.0] * 300, 0),
    "all of a batch at once": (batches(12, 64, 60.0, 0.0), 0),
    "batches decoded one by one": (batches(12, 64, 60.0, 0.1), 0),
    "most was done before": ([5.0] * 60, 500),
    "done before, then batches": (batches(8, 16, 40.0, 0.05), 300),
    "one step takes minutes": ([600.0] * 12, 0),
}


@pytest.mark.parametrize("name", WORK)
def test_no_estimate_is_far_off(name: str) -> None:
    waits, before = WORK[name]
    seen = [(true, estimate) for true, estimate in estimates(waits, before) if estimate is not None]
    longest = max(waits)
    assert len(seen) > len(waits) / 4
    for true, estimate in seen:
        assert true / 2 - longest <= estimate <= 2 * true + longest, (true, estimate)


@given(st.integers(0, 10_000), st.floats(0.0, 30.0))
def test_irregular_steps_are_estimated_within_a_factor(seed: int, start: float) -> None:
    dice = random.Random(seed)
    waits = [start + 1.0] + [dice.uniform(0.2, 1.8) for _ in range(300)]
    for true, estimate in list(estimates(waits))[100:]:
        assert estimate is not None and true / 2 - 10 <= estimate <= 2 * true + 10


def test_no_estimate_without_a_basis() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left.seconds() is None
    clock.now += 30.0
    left.update(1, 10)
    assert left.seconds() is None  # models were loaded, too
    clock.now += 1.0
    left.update(2, 10)
    assert left.seconds() is None
    for done in range(3, 9):
        clock.now += 6.0
        left.update(done, 10)
    assert left.seconds() == pytest.approx(12.0, abs=3.0)
    clock.now += 100.0  # it stands still
    assert left.seconds() is None


def test_other_work_starts_a_new_estimate() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    for done in range(1, 50):
        clock.now += 0.1
        left.update(done, 100)
    assert left.seconds() is not None
    clock.now += 20.0
    left.update(1, 60)
    assert left.seconds() is None


def test_durations_are_short() -> None:
    assert [as_text(s) for s in (4.2, 89.0, 700.0, 9000.0)] == ["4 s", "89 s", "12 min", "2.5 h"]

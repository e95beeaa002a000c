"""Prefetching: results in order, never more ahead than allowed."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing

import pytest

from plaudit.prefetch import prefetch


def test_order_is_kept_and_the_lead_bounded() -> None:
    begun, lock = [], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    for place, result in enumerate(prefetch(work, range(50), depth=4, threads=3)):
        assert result == place**2
        with lock:
            assert max(begun) <= place + 4
    assert sorted(begun) == list(range(50))


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = prefetch(lambda item: 1 // item, [1, 2, 0, 3], depth=3, threads=2)
    assert [next(results), next(results)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_results_that_wait_never_weigh_more_than_the_limit_and_two_results() -> None:
    held, heaviest, lock = 0, 0, threading.Lock()
    dice = random.Random(1)
    sizes = [10] * 5 + [dice.choice([1, 2, 10]) for _ in range(60)]

    def work(size: int) -> int:
        nonlocal held, heaviest
        with lock:
            held += size
            heaviest = max(heaviest, held)
        return size

    with closing(prefetch(work, sizes, depth=30, threads=4, weight=float, limit=25)) as results:
        for taken, expected in zip(results, sizes, strict=True):
            time.sleep(0.002)
            assert taken == expected
            with lock:
                held -= taken
    assert 10 < heaviest <= 25 + 10 + 10  # the one in hand, and the one that is needed next


def test_one_heavier_than_the_limit_goes_alone_and_nothing_is_begun_before_a_weight_is_known() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    with closing(prefetch(work, range(8), depth=8, threads=4, weight=lambda _: 100.0, limit=10)) as results:
        for item in range(8):
            assert next(results) == item
            time.sleep(0.01)
            assert len(begun) <= item + 2


def test_closing_frees_the_threads_that_wait() -> None:
    results = prefetch(lambda item: item, range(50), depth=20, threads=3, weight=lambda _: 10.0, limit=10)
    assert next(results) == 0
    results.close()  # would wait for ever
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_closing_begins_no_more() -> None:
    begun: list[int] = []
    results = prefetch(begun.append, range(1000), depth=2, threads=1)
    next(results)
    results.close()
    assert len(begun) <= 3


def test_an_error_does_not_block_the_rest() -> None:
    results = prefetch(lambda item: 1 / (item - 3), range(9), depth=9, threads=3, weight=lambda _: 1.0, limit=1)
    with pytest.raises(ZeroDivisionError):
        list(results)

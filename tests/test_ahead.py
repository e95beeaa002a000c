"""Work ahead of its use keeps its order and its distance."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from plaudit.ahead import ahead


def test_order_is_kept_and_the_lead_bounded() -> None:
    begun, lock = [], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    with ThreadPoolExecutor(3) as pool:
        for place, result in enumerate(ahead(pool, work, range(50), 4)):
            assert result == place**2
            with lock:
                assert max(begun) <= place + 4
    assert sorted(begun) == list(range(50))


def test_an_error_is_raised_where_its_result_would_be() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = ahead(pool, lambda item: 1 // item, [1, 2, 0, 3], 3)
        assert [next(results), next(results)] == [1, 0]
        with pytest.raises(ZeroDivisionError):
            next(results)

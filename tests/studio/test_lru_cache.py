"""The cache of values that requests share."""

from __future__ import annotations

import pytest

from plaudit.studio.lru_cache import LRUCache


def test_the_least_recently_used_goes_first() -> None:
    cache: LRUCache[int] = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.put("a", 4)
    assert cache.get("a") == 4


def test_a_value_is_computed_once_and_an_error_is_not_cached() -> None:
    cache: LRUCache[int] = LRUCache(4)
    assert [cache.get_or_compute("a", lambda: 1), cache.get_or_compute("a", lambda: 2)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("b", lambda: 1 // 0)
    assert cache.get_or_compute("b", lambda: 5) == 5

"""An in-memory cache of values that requests would otherwise read or compute again, shared by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LRUCache(Generic[T]):
    """At most `capacity` values by key; the least recently used go first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """The value of a key; None where it is not in the cache."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: T) -> None:
        """Set the value of a key."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.capacity:
                self._values.popitem(last=False)

    def get_or_compute(self, key: str, compute: Callable[[], T]) -> T:
        """The value of a key, computed where it is not in the cache. What `compute` raises is not cached."""
        value = self.get(key)
        if value is None:
            value = compute()
            self.put(key, value)
        return value

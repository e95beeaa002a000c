"""Values that never change, kept in memory so that each request need not read them again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """At most `most` values by key; those that were not used for longest go first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, key: str) -> T | None:
        """The value of a key, where it is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of a key, made where it is not kept; an error of `make` is raised, and nothing kept."""
        value = self.known(key)
        if value is None:
            value = make()
            with self._lock:
                self._values[key] = value
                while len(self._values) > self.most:
                    self._values.popitem(last=False)
        return value

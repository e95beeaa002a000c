"""Results computed ahead of their use by threads, within a bound on the memory that they take."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    depth: int,
    threads: int,
    weight: Callable[[R], float] = lambda result: 0.0,
    limit: float = math.inf,
) -> Generator[R]:
    """function(item) of each item, in their order; threads begin at most `depth` of them before the one that is taken.

    weight: of a result, in any unit. An item is begun only if it fits within `limit` beside the results that wait and
    those in the making, were all of them as heavy as the heaviest so far; the one that is needed next always is. What
    function raises is raised where its result would be. Close the generator to stop the threads.
    """
    queue = _Queue(limit)
    pool = ThreadPoolExecutor(threads, "prefetch")
    waiting: deque[Future[R]] = deque()

    def work(number: int, item: T) -> R:
        with queue.place(number) as weigh:
            result = function(item)
            weigh(weight(result))
        return result

    def take() -> R:
        result = waiting.popleft().result()
        queue.take(weight(result))
        return result

    try:
        for number, item in enumerate(items):
            waiting.append(pool.submit(work, number, item))
            if len(waiting) > depth:
                yield take()
        while waiting:
            yield take()
    finally:
        queue.close()
        pool.shutdown(wait=True, cancel_futures=True)


class _Queue:
    """The weight of the results that wait, and the item that is needed next."""

    def __init__(self, limit: float) -> None:
        self._limit, self._held, self._heaviest = limit, 0.0, limit
        self._running = self._next = 0
        self._measured = self._closed = False  # measured: whether `heaviest` is of a result
        self._changed = threading.Condition()

    @contextmanager
    def place(self, number: int) -> Iterator[Callable[[float], None]]:
        """Wait until item `number` may begin; the function that is given takes the weight of its result."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number <= self._next or self._fits())
            self._running += 1
        weighed: list[float] = []
        try:
            yield weighed.append
        finally:
            with self._changed:
                self._running -= 1
                self._held += sum(weighed)
                if weighed:
                    self._heaviest = max(weighed[0], self._heaviest if self._measured else 0.0)
                    self._measured = True
                self._changed.notify_all()

    def _fits(self) -> bool:
        return self._held + (self._running + 1) * self._heaviest <= self._limit

    def take(self, weight: float) -> None:
        """The result that was needed next is taken."""
        with self._changed:
            self._held -= weight
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """No result will be taken any more: release the threads that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

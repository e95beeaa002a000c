"""Work that threads share by its items, each thread on processors of its own.

PyTorch's own threads share every operation and wait for one another at its end: once another process takes one of their
processors, all of them stand still. Items that threads compute from beginning to end wait only at the end of all.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from plaudit.processors import THREADS, processors

T = TypeVar("T")
R = TypeVar("R")

MOST = 8
"""Workers at most (ours): each takes Python's lock between two operations, and memory for results of its own."""


def thread_count() -> int:
    """Threads to compute with: PyTorch's number, but no more than there are processors, unless the user set it."""
    threads = torch.get_num_threads()
    return threads if THREADS in os.environ else min(threads, processors())


def division(threads: int, items: int, most: int = MOST) -> tuple[int, int]:
    """(workers, threads of each) for so many independent items, at most `most` workers: few threads are left idle, and
    workers come first."""
    most = max(1, min(threads, items, most))
    workers = max(range(most // 2 + 1, most + 1), key=lambda count: (threads // count * count, count))
    return workers, threads // workers


def even_slices(items: int, parts: int) -> list[slice]:
    """Consecutive slices of so many items, whose lengths differ by 1 at most."""
    bounds = [items * number // parts for number in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


class Workers:
    """Threads that share work; see `cpu_workers`."""

    def __init__(self, count: int, threads: int, pool: ThreadPoolExecutor | None) -> None:
        self.count, self._threads, self._pool = count, threads, pool

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """function(item) of each item, in their order. What it raises is raised once no thread is working any more."""
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        running = [self._pool.submit(function, item) for item in items]
        wait(running)
        return [future.result() for future in running]

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While the block lasts, and no worker works, PyTorch computes with the number of threads it had before."""
        own = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(own)


@contextmanager
def shared_threads(items: int, most: int = MOST) -> Iterator[int]:
    """How many threads are to share so many independent items. Until the block ends, each of them, once started, has
    its part of PyTorch's threads."""
    before = torch.get_num_threads()
    count, each = division(thread_count(), items, most)
    torch.set_num_threads(each)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


@contextmanager
def cpu_workers(items: int) -> Iterator[Workers]:
    """Workers for at most so many items at once, which divide PyTorch's threads among them until the block ends."""
    before = torch.get_num_threads()
    with shared_threads(items) as count:
        if count == 1:
            yield Workers(1, before, None)
            return
        with ThreadPoolExecutor(count, "worker") as pool:
            yield Workers(count, before, pool)

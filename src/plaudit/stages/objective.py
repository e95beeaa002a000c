"""What a stage brings to the loop: how a batch is drawn, and what its loss is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from torch import Tensor, nn

Inputs = dict[str, Tensor]
"""One batch with everything random about it already drawn, by name; the first axis of each tensor is the clips'."""


class Objective(Protocol):
    """A stage's loss in two halves: `draw` reads and draws on the CPU, ahead and in other threads; `loss` computes."""

    def draw(self, index: int, part: slice) -> Inputs:
        """The clips at `part` of batch `index`.

        Depends on both alone, and a part of a batch is that part of the whole: what is random is drawn for the whole
        batch and then cut, so that any number of processes sees the same numbers.
        """

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Named scalars, "loss" among them, each the mean over the clips; `inputs` are where the network is."""


def prefetched(
    draw: Callable[[int], Inputs], indices: Iterable[int], ahead: int, readers: int
) -> Generator[tuple[int, Inputs]]:
    """(index, batch) for each index, in order, of which `ahead` are being drawn by other threads meanwhile.

    Close the generator to stop those threads.
    """
    pool = ThreadPoolExecutor(readers, thread_name_prefix="loader")
    waiting: deque[tuple[int, Future[Inputs]]] = deque()
    try:
        for index in indices:
            waiting.append((index, pool.submit(draw, index)))
            if len(waiting) > ahead:
                number, future = waiting.popleft()
                yield number, future.result()
        while waiting:
            number, future = waiting.popleft()
            yield number, future.result()
    finally:
        pool.shutdown(cancel_futures=True)

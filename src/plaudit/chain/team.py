"""The processes of one run, where torchrun or `accelerate launch` started several: who leads, and waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator

T = TypeVar("T")

PATIENCE = timedelta(days=60)
"""How long the others wait for the leading process: it may encode or generate for days. Training keeps its own, short
limit, so that a process that hangs is noticed."""


class Team:
    """All processes of a run. Work that is not training is the leading one's; with one process there is nothing to it.

    Use as a context: at the end it closes the process group, without which some processes abort on exit.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._many = accelerator.num_processes > 1
        self.leads = accelerator.is_main_process
        # Waiting on gloo costs nothing; on a GPU's group it would be a kernel that spins.
        self._waiting = dist.new_group(backend="gloo", timeout=PATIENCE) if self._many else None

    def wait(self) -> None:
        """Return once every process has come here."""
        if self._many:
            dist.barrier(group=self._waiting)

    def told(self, value: T) -> T:
        """The leading process's value, on every process."""
        if not self._many:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._waiting)
        return values[0]

    @contextmanager
    def lead_first(self) -> Iterator[None]:
        """The block runs on the leading process, then on the others. Work that skips what it finds whole is thus done
        once, and known to all."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        if self._many:
            dist.destroy_process_group()

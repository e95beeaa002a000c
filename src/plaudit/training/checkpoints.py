"""Checkpoints and snapshots of a training pass, written in the background.

A checkpoint holds unsharded tensors whatever the strategy, so that a run can be resumed on another number of processes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from plaudit.backbone.ema import (
    PostHocEMA,
    copy_into,
    sharded_like,
    snapshot,
)
from plaudit.errors import ModelError
from plaudit.storage import (
    checkpoint_damage,
    save_checkpoint,
)
from plaudit.training.distributed import DistributedModel

CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"


class Writer:
    """Writes files in another thread, one after the other; an error is raised at the next write, or at the end.

    Use as a context. What is written must not change any more: see `snapshot`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def submit(self, write: Callable[[], None]) -> None:
        """Write in the background. Waits for the write before, so that one copy of the weights at most is in memory."""
        self.wait()
        self._pending = self._pool.submit(write)

    def wait(self) -> None:
        """Return once everything is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception:
            if kind is None:  # the error that stopped training comes first
                raise
        finally:
            self._pool.shutdown()


def save(
    writer: Writer,
    folder: Path,
    step: int,
    distributed: DistributedModel,
    optimizer: torch.optim.Optimizer,
    ema: PostHocEMA,
    keep: int,
) -> None:
    """Checkpoint training after update `step`, and remove all but the last `keep`. Every process must call it."""
    state = {
        "network": {name: p for name, p in distributed.inner.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
    }
    is_main = distributed.accelerator.is_main_process
    copied = snapshot(state, keep=is_main)

    def write() -> None:
        place = folder / CHECKPOINTS
        place.mkdir(parents=True, exist_ok=True)
        save_checkpoint(place / f"{step:08d}.pt", copied)
        for old in checkpoints(folder)[:-keep]:
            old.unlink()

    if is_main:
        writer.submit(write)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training pass, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("*.pt"))


def resume(folder: Path, distributed: DistributedModel, optimizer: torch.optim.Optimizer, ema: PostHocEMA) -> int:
    """Fill everything from the newest checkpoint and return its step; 0 where there is none.

    ModelError where it is damaged.
    """
    if distributed.accelerator.is_main_process:
        for leftover in (path for place in (CHECKPOINTS, SNAPSHOTS) for path in (folder / place).glob("*.partial")):
            leftover.unlink()  # of a process that was killed while it wrote
    saved = checkpoints(folder)
    if not saved:
        return 0
    try:
        if (damage := checkpoint_damage(saved[-1])) is not None:
            raise ValueError(damage)
        state = torch.load(saved[-1], weights_only=True, map_location="cpu", mmap=True)
        for name, parameter in distributed.inner.named_parameters():
            if parameter.requires_grad:
                copy_into(parameter, state["network"][name])
        # How the optimizer computes is today's: a checkpoint may be of another form of it.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({**_sharded(state["optimizer"], optimizer), "param_groups": groups})
        ema.load_state_dict(state["ema"])
        return int(state["step"])
    except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # PyTorch's message on a foreign file advises to run the code in it.
        foreign = isinstance(error, pickle.UnpicklingError) or not str(error)
        reason = "it is not a checkpoint" if foreign else str(error).splitlines()[0]
        where = "an earlier checkpoint" if len(saved) > 1 else "the stage's start"
        raise ModelError(f"{saved[-1]} is damaged ({reason}); delete it to train from {where}") from None


def _sharded(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved state, which goes by the order of the optimizer's parameters, sharded as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        number: {
            name: sharded_like(parameters[number], value) if value.shape == parameters[number].shape else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def save_snapshots(writer: Writer, folder: Path, ema: PostHocEMA, is_main: bool) -> None:
    """Save the running averages, from which those of other lengths are computed. Every process must call it."""
    copies = ema.snapshots(keep=is_main)

    def write() -> None:
        for snap in copies:
            snap.save(folder / SNAPSHOTS / f"{snap.step:08d}-{snap.sigma_rel:0<5}.safetensors")

    if is_main:
        writer.submit(write)

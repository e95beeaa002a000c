"""What training continues from, and snapshots of the running averages: written beside the loop, whole or not at all.

A checkpoint holds whole tensors whatever the strategy, so that a run goes on under any other number of processes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from plaudit.assets import checkpoint_damage, save_checkpoint
from plaudit.backbone.ema import PostHocEMA
from plaudit.backbone.sharding import fill, shared_as, snapshot
from plaudit.errors import ModelError
from plaudit.stages.parallel import Spread

CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"


class Writer:
    """Writes files in another thread, one after the other; an error is raised at the next write, or at the end.

    Use as a context. What is to be written must not change any more: see `snapshot`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def submit(self, write: Callable[[], None]) -> None:
        """Write soon. Waits for the write before, so that no more than one copy of the weights waits in memory."""
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
            if kind is None:  # what stopped training already is the better news
                raise
        finally:
            self._pool.shutdown()


def save(
    writer: Writer,
    folder: Path,
    step: int,
    spread: Spread,
    optimizer: torch.optim.Optimizer,
    ema: PostHocEMA,
    keep: int,
) -> None:
    """Checkpoint training after update `step`, and remove all but the last `keep`. Every process must call it."""
    state = {
        "network": {name: p for name, p in spread.inner.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
    }
    lead = spread.accelerator.is_main_process
    copied = snapshot(state, keep=lead)

    def write() -> None:
        place = folder / CHECKPOINTS
        place.mkdir(parents=True, exist_ok=True)
        save_checkpoint(place / f"{step:08d}.pt", copied)
        for old in kept(folder)[:-keep]:
            old.unlink()

    if lead:
        writer.submit(write)


def kept(folder: Path) -> list[Path]:
    """The checkpoints of a training pass, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("*.pt"))


def resume(folder: Path, spread: Spread, optimizer: torch.optim.Optimizer, ema: PostHocEMA) -> int:
    """Fill everything from the newest checkpoint and return its step; 0 where there is none.

    ModelError where it is damaged.
    """
    if spread.accelerator.is_main_process:
        for leftover in (path for place in (CHECKPOINTS, SNAPSHOTS) for path in (folder / place).glob("*.partial")):
            leftover.unlink()  # of a process that was killed while it wrote
    found = kept(folder)
    if not found:
        return 0
    try:
        if (damage := checkpoint_damage(found[-1])) is not None:
            raise ValueError(damage)
        state = torch.load(found[-1], weights_only=True, map_location="cpu", mmap=True)
        for name, parameter in spread.inner.named_parameters():
            if parameter.requires_grad:
                fill(parameter, state["network"][name])
        optimizer.load_state_dict(_shared(state["optimizer"], spread))
        ema.load_state_dict(state["ema"])
        return int(state["step"])
    except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # PyTorch's own words on a file that is none of its own advise to run the code in it.
        foreign = isinstance(error, pickle.UnpicklingError) or not str(error)
        reason = "it is not a checkpoint" if foreign else str(error).splitlines()[0]
        where = "an earlier checkpoint" if len(found) > 1 else "the stage's start"
        raise ModelError(f"{found[-1]} is damaged ({reason}); delete it to train from {where}") from None


def _shared(state: dict[str, Any], spread: Spread) -> dict[str, Any]:
    """An optimizer's state, which goes by the parameters' order, spread as they are."""
    parameters = spread.trainable
    entries = {
        number: {
            name: shared_as(parameters[number], value) if value.shape == parameters[number].shape else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def save_snapshots(writer: Writer, folder: Path, ema: PostHocEMA, lead: bool) -> None:
    """Keep the running averages as they stand, for averages of other lengths. Every process must call it."""
    copies = ema.snapshots(keep=lead)

    def write() -> None:
        for copy in copies:
            copy.save(folder / SNAPSHOTS / f"{copy.step:08d}-{copy.sigma_rel:.3f}.safetensors")

    if lead:
        writer.submit(write)

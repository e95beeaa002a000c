"""Training on the CPU beside another busy process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.training import BATCH, SETTLING, Reference, training
from plaudit.backbone.config import PRESETS, FluxAudioConfig
from plaudit.machine import environment_of
from plaudit.workers import thread_count


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Processes that compute without end, until the block does."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3 if count else 0)  # they start
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(
    config: FluxAudioConfig, batch: int, updates: int, turns: int, neighbours: int, compiled: bool, reference: bool
) -> dict[str, Any]:
    """Median seconds of an update quiet and beside busy processes, in turns, and what one is of the other."""
    each = updates + SETTLING
    with tempfile.TemporaryDirectory() as place:
        ours = training(config, 2 * turns * each, batch, each, Path(place) / "ours", compiled)
        ways: dict[str, Any] = {"": ours}
        if reference:
            ways["_of_reference"] = Reference(ours)
        seconds: dict[str, list[list[float]]] = {name: [[], []] for name in ways}
        for _ in range(turns):
            for name, way in ways.items():
                for number, count in enumerate((0, neighbours)):
                    with busy_neighbours(count):
                        seconds[name][number].append(way.turn(each))
        if reference:
            ways["_of_reference"].close()
    results: dict[str, Any] = {}
    for name, (quiet, busy) in seconds.items():
        results[f"slowdown{name}"] = statistics.median(busy) / statistics.median(quiet)
        results[f"seconds_quiet{name}"] = statistics.median(quiet)
        results[f"seconds_busy{name}"] = statistics.median(busy)
    return results


def main(
    updates: Annotated[int, typer.Option(min=1, help="Of each turn.")] = 15,
    turns: Annotated[int, typer.Option(min=1)] = 2,
    neighbours: Annotated[int, typer.Option(min=1, help="Busy processes.")] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the package's blocks.")] = False,
    reference: Annotated[bool, typer.Option(help="Measure PyTorch's threads in a plain loop, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Training of the synthetic network on this CPU: seconds of an update quiet, and beside a busy process.

    The process is another Python that computes without end, on whatever processor it is given. Turns of both take
    place in one run.
    """
    results = measure(PRESETS["synthetic"], BATCH, updates, turns, neighbours, compiled, reference)
    results |= {"neighbours": neighbours, "threads": thread_count(), **environment_of(torch.device("cpu"))}
    if as_json:
        print(json.dumps(results))
        return
    print(f"{results['slowdown']:.2f} times slower beside {neighbours} busy process(es)")
    if reference:
        print(f"{results['slowdown_of_reference']:.2f} times with PyTorch's threads")


if __name__ == "__main__":
    typer.run(main)

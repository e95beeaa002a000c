"""Settings of all tests: property tests try the same examples each time, so that a
failure is never an accident, and have no time limit.

`HYPOTHESIS_PROFILE=explore` tries new ones.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Iterator

import pytest
import typer.main
import typer.testing
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once() -> Iterator[None]:
    """Typer builds its commands anew for every command line, which takes forty times as long as reading the line."""
    built = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", built)
        patch.setattr(typer.testing, "_get_command", built)
        yield


@pytest.fixture(scope="module", autouse=True)
def _modules_are_not_collected_again() -> None:
    """Accelerate collects garbage at the end of every training, which takes a second where a session of tests has
    imported everything. What exists before a file's tests is left out of later collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _own_precision() -> Iterator[None]:
    """Accelerate keeps one precision a process; each file of tests may have its own."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """PyTorch's number of threads is the process's: tests that follow one that sets it would share the processors with
    more threads than there are."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None and sys.modules["torch"].get_num_threads() != before:
        sys.modules["torch"].set_num_threads(before)

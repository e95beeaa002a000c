"""Settings of all tests: property tests try the same examples each time, so that a
failure is never an accident, and have no time limit.

`HYPOTHESIS_PROFILE=explore` tries new ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


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

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

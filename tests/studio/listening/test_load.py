"""Two hundred listeners at once: every vote is stored once. How quickly is measured by benchmarks/studio.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studio import measure


@pytest.mark.slow
def test_two_hundred_listeners_at_once_lose_no_vote(tmp_path: Path) -> None:
    figures = measure(listeners=200, seconds=20, pause=5, folder=tmp_path / "studio")
    print(figures["milliseconds"])
    assert figures["votes"] >= 200
    assert figures["stored_once"]

"""Made-up systems as tables, for the tests of comparisons."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A CSV of rows that all have the columns of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def clips(seed: int, count: int = 20, lift: float = 0.0, **columns: Any) -> list[dict[str, Any]]:
    """Rows of one system: prompts of their own level, `lift` above it in reward, and a CLAP score."""
    level = np.random.default_rng(99).normal(size=count)
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"{i:03d}",
            "prompt": f"prompt {i}, with a comma",
            "reward": level[i] + lift + rng.normal(0, 0.3),
            "clap": 0.3 + 0.1 * rng.normal(),
            **columns,
        }
        for i in range(count)
    ]

"""Made-up systems as tables, for the tests of comparisons."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.evaluate.values import VALUES, Values


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A CSV of rows that all have the columns of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_values(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The same rows as the `values.parquet` of a folder."""
    about = {"prompt_id": "id", "prompt": "prompt", "file": "file"}
    long = [
        {"system": str(row.get("system", folder.name)), "metric": metric, "value": float(value),
         **{name: row[key] for name, key in about.items() if key in row}}
        for row in rows for metric, value in row.items() if metric not in ("id", "prompt", "file", "system")
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    Values.of_rows(long).write(folder / VALUES)
    return folder


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

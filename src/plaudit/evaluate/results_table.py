"""What an evaluation leaves: one row per clip and one result per metric, as `clips.csv` and `summary.json`.

`clips.csv` has the columns id, prompt, seed (where that of every clip is known) and file (relative to the folder of the
table, or absolute), then one per metric with a number where the clip has one, and last `error` where any clip has none.
Two systems on the same prompts are compared by joining two such tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import EvaluationError, ModelError
from plaudit.files import path_in
from plaudit.storage import read_json, write_atomically, write_json

CLIPS, SUMMARY = "clips.csv", "summary.json"
FORMAT = 1
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class ClipRow:
    """One prompt's clip. `file` is "" where there is none; a clip with an `error` has no values and is in no mean.

    details: what a number does not say, by metric (which concepts were found), for summary.json alone. seed: that the
    clip was generated from, where it is known.
    """

    id: str
    prompt: str
    file: str
    values: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class MetricResult:
    """A metric of the whole set, over `clips` clips.

    low, high: the 95 % interval. Where value or interval is None, `note` says why. embedding: what heard the clips,
    where the metric is one of embeddings.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    clips: int
    better: Better
    embedding: str | None = None
    note: str = ""

    @property
    def key(self) -> str:
        """The metric's name in tables: that of its embedding is part of it."""
        return column(self.name, self.embedding)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured of a set of clips.

    notes: what a reader must know of the clips (missing, unreadable, duplicate, without a prompt), a line each.
    settings: with what it was measured: package version, models and their digests, the reference.
    """

    rows: list[ClipRow]
    metrics: list[MetricResult]
    notes: list[str]
    settings: dict[str, Any]

    @property
    def scored(self) -> list[ClipRow]:
        """The clips that every mean is over."""
        return [row for row in self.rows if row.error is None]

    def table(self) -> tuple[list[str], list[dict[str, Any]]]:
        """(columns, rows) of clips.csv."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.values))
        failed = len(self.scored) < len(self.rows)
        seeds = [row.seed for row in self.rows if row.file or row.error is None]
        seeded = bool(seeds) and None not in seeds
        columns = ["id", "prompt", *(["seed"] if seeded else []), "file", *names, *(["error"] if failed else [])]
        rows = []
        for row in self.rows:
            facts = {"id": row.id, "prompt": row.prompt, "seed": row.seed, "file": row.file, "error": row.error}
            rows.append({name: value for name, value in {**facts, **row.values}.items() if name in columns})
        return columns, rows

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        counts = {"asked": len(self.rows), "scored": len(self.scored)}
        return {"format": FORMAT, "clips": counts, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Write `clips.csv` and, last, because its presence says that all is there, `summary.json`.

        Files are named relative to `folder`, or by absolute paths.
        """
        placed = replace(self, rows=[replace(r, file=r.file and path_in(folder, r.file)) for r in self.rows])
        columns, rows = placed.table()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(folder / CLIPS, text.getvalue())
        write_json(folder / SUMMARY, placed.summary())

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what `save` wrote; EvaluationError where the folder holds no whole evaluation."""
        try:
            found = read_json(folder / SUMMARY)
            if found["format"] != FORMAT:
                raise EvaluationError(f"{folder / SUMMARY} has format {found['format']}, not {FORMAT}; evaluate again")
            rows = [ClipRow(**row) for row in found["rows"]]
            return cls(rows, [MetricResult(**m) for m in found["metrics"]], found["notes"], found["settings"])
        except (ModelError, KeyError, TypeError) as error:
            raise EvaluationError(f"{folder} holds no whole evaluation ({error}); write one with --output") from None


def column(name: str, embedding: str | None) -> str:
    """A metric's name in tables: `frechet-synthetic`."""
    return name if embedding is None else f"{name}-{embedding}"


def values_of(rows: Sequence[ClipRow], name: str) -> list[float]:
    """A metric of the clips that have it."""
    return [value for row in rows if (value := row.values.get(name)) is not None]

"""The long table of metric values, `values.parquet`: one row per clip and metric, and one per metric of a set of clips.

Columns: system (a stage of a run, an evaluated folder, a model of a sweep), condition (of a sweep, as "score=1.5"),
prompt_id, prompt, seed, file (relative to the table's folder), metric, embedding (the encoder, for metrics of
embeddings), value, low, high, clips and note. A row of a set has no prompt_id, but `clips`, the number of clips it is
over, and where the metric has one a 95 % interval. A value that could not be measured is null, and `note` says why.
The bootstrap replicates of sets, which paired differences need, are in `replicates.npz` beside the table.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from plaudit.errors import EvaluationError
from plaudit.files import path_in
from plaudit.statistics import Array, Interval
from plaudit.storage import write_atomically

VALUES, REPLICATES = "values.parquet", "replicates.npz"
FAILED = "failed: "
"""Before the note of a clip that could not be evaluated, in the rows of all its metrics."""

DESCRIBED = b"plaudit.metrics"
"""The key of the table's metadata."""

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("system", "condition", "prompt_id", "prompt")),
        ("seed", pa.int64()),
        *((name, pa.string()) for name in ("file", "metric", "embedding")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        ("clips", pa.int64()),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True)
class SetValue:
    """A metric of a set of clips with its 95 % interval; where value or interval is None, `note` says why.

    replicates: [R], the metric of resampled clips. Sets of as many clips are resampled alike, so that differences of
    replicates are paired.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    replicates: Array | None = field(default=None, compare=False)
    note: str = ""
    clips: int = 0
    metric: str = ""
    embedding: str = ""

    @classmethod
    def of(cls, interval: Interval, note: str = "") -> SetValue:
        """A value with its interval."""
        return cls(interval.mean, interval.low, interval.high, note=note)

    @property
    def interval(self) -> Interval | None:
        """Value and ends of the interval, where it has one."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return Interval(self.value, self.low, self.high)


@dataclass(frozen=True)
class Values:
    """Rows of the long table, with the replicates of sets by `replicates_key`.

    described: heading, direction and unit of metrics that are not built in, by name (plaudit.evaluate.metrics).
    Properties of one system need a table with one system and condition, as from `select`.
    """

    table: pa.Table
    replicates: Mapping[str, Array] = field(default_factory=dict)
    described: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        replicates: Mapping[str, Array] | None = None,
        described: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Values:
        """A table of rows; strings that a row lacks are empty, numbers null."""
        defaults = {name: "" if SCHEMA.field(name).type == pa.string() else None for name in SCHEMA.names}
        return cls(
            pa.Table.from_pylist([{**defaults, **row} for row in rows], SCHEMA), replicates or {}, described or {}
        )

    @classmethod
    def concat(cls, parts: Iterable[Values]) -> Values:
        """The rows of all parts."""
        parts = list(parts)
        replicates = {key: array for part in parts for key, array in part.replicates.items()}
        described = {name: about for part in parts for name, about in part.described.items()}
        return cls(pa.concat_tables([part.table for part in parts] or [SCHEMA.empty_table()]), replicates, described)

    @classmethod
    def collect(cls, folders: Iterable[Path], into: Path) -> Values:
        """The tables in those of the folders that have one, with files named relative to the folder `into`."""
        tables = [folder for folder in sorted(folders) if (folder / VALUES).is_file()]
        return cls.concat(_placed(folder, into) for folder in tables)

    @classmethod
    def read(cls, path: Path) -> Values:
        """The table at `path`, or `values.parquet` in a folder; EvaluationError in one line where it is damaged."""
        path = path / VALUES if path.is_dir() else path
        try:
            table = pyarrow.parquet.read_table(path)
            described = json.loads((table.schema.metadata or {}).get(DESCRIBED, b"{}"))
            table = table.select(SCHEMA.names).cast(SCHEMA)
            replicates = {}
            if (beside := path.with_name(REPLICATES)).is_file():
                with np.load(beside, allow_pickle=False) as arrays:
                    replicates = {key: arrays[key] for key in arrays.files}
        except FileNotFoundError:
            raise EvaluationError(f"{path} does not exist; check the folder, or evaluate again") from None
        except (OSError, pa.ArrowException, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:200]
            raise EvaluationError(f"{path} is damaged ({reason}); delete its folder and evaluate again") from None
        return cls(table, replicates, described)

    def write(self, path: Path) -> None:
        """Write the replicates and then the table, each whole or not at all; as CSV, without replicates, to a .csv."""
        buffer = io.BytesIO()
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(self.table, buffer)
        else:
            if self.replicates:
                arrays = io.BytesIO()
                np.savez(arrays, **dict(self.replicates))  # type: ignore[arg-type]
                write_atomically(path.with_name(REPLICATES), arrays.getvalue())
            table = self.table.replace_schema_metadata({DESCRIBED: json.dumps(self.described)})
            pyarrow.parquet.write_table(table, buffer)
        write_atomically(path, buffer.getvalue())

    def with_files(self, rename: Callable[[str], str]) -> Values:
        """The same rows with other names of files."""
        files = [file and rename(file) for file in self.table["file"].to_pylist()]
        place = SCHEMA.get_field_index("file")
        return replace(self, table=self.table.set_column(place, SCHEMA.field("file"), pa.array(files, pa.string())))

    def rows(self) -> list[dict[str, Any]]:
        """Every row as plain values."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    def select(self, **columns: Any) -> Values:
        """The rows whose columns have these values, or one of them where a list is given."""
        mask = None
        for name, value in columns.items():
            options = value if isinstance(value, list | tuple | set) else [value]
            match = pc.is_in(self.table[name], pa.array(list(options), SCHEMA.field(name).type))
            mask = match if mask is None else pc.and_(mask, match)
        return self if mask is None else replace(self, table=self.table.filter(mask))

    def _distinct(self, column: str) -> list[Any]:
        return list(dict.fromkeys(self.table[column].to_pylist()))

    @property
    def systems(self) -> list[str]:
        """Systems in the order of the table."""
        return self._distinct("system")

    @property
    def conditions(self) -> list[str]:
        """Conditions in the order of the table."""
        return self._distinct("condition")

    @property
    def metrics(self) -> list[str]:
        """Metrics in the order of the table."""
        return self._distinct("metric")

    @property
    def clip_metrics(self) -> list[str]:
        """The metrics that any clip has a value of, in the order of the table."""
        rows = pc.and_(pc.not_equal(self.table["prompt_id"], ""), pc.is_valid(self.table["value"]))
        return replace(self, table=self.table.filter(rows))._distinct("metric")

    @property
    def embeddings(self) -> list[str]:
        """The encoders of the metrics' embeddings."""
        return [name for name in self._distinct("embedding") if name]

    @property
    def clips(self) -> list[dict[str, Any]]:
        """The clips of one system: prompt_id, prompt, seed and file of each, in the order of the table."""
        columns = ["prompt_id", "prompt", "seed", "file"]
        rows = self.table.filter(pc.not_equal(self.table["prompt_id"], "")).select(columns).to_pylist()
        return [dict(zip(columns, key, strict=True)) for key in dict.fromkeys(tuple(row.values()) for row in rows)]

    @property
    def prompts(self) -> list[str]:
        """The prompt of each clip of one system, in the order of `clip`."""
        return [clip["prompt"] for clip in self.clips]

    def clip(self, metric: str, embedding: str | None = None) -> Array:
        """A metric of every clip [n] of one system, NaN where a clip has none; empty where it was not measured."""
        part = self._metric(metric, embedding)
        values = part.table.filter(pc.not_equal(part.table["prompt_id"], ""))["value"]
        return np.array(values.to_pylist(), dtype=np.float64)

    def set(self, metric: str, embedding: str | None = None) -> SetValue | None:
        """A metric over the clips of one system; None where it was not measured."""
        return next(iter(self._metric(metric, embedding)._set_rows()), None)

    @property
    def sets(self) -> list[SetValue]:
        """The metrics of one system that no single clip has a value of."""
        of_clips = replace(self, table=self.table.filter(pc.not_equal(self.table["prompt_id"], ""))).metrics
        return [one for one in self._set_rows() if one.metric not in of_clips]

    def _set_rows(self) -> list[SetValue]:
        rows = self.table.filter(pc.equal(self.table["prompt_id"], "")).to_pylist()
        values = []
        for row in rows:
            key = replicates_key(row["system"], row["condition"], row["metric"], row["embedding"])
            facts = {name: row[name] for name in ("value", "low", "high", "note", "metric", "embedding")}
            values.append(SetValue(**facts, clips=row["clips"] or 0, replicates=self.replicates.get(key)))
        return values

    def _metric(self, metric: str, embedding: str | None) -> Values:
        part = self.select(metric=metric)
        first = embedding if embedding is not None else next(iter(part._distinct("embedding")), "")
        return part.select(embedding=first)


def _placed(folder: Path, into: Path) -> Values:
    return Values.read(folder).with_files(lambda file: path_in(into, folder / file))


def replicates_key(system: str, condition: str, metric: str, embedding: str) -> str:
    """The name of a set's replicates in `replicates.npz`."""
    return f"{system}/{condition}/{metric_key(metric, embedding)}"


def metric_key(metric: str, embedding: str | None) -> str:
    """A metric's name in wide tables: `frechet-synthetic`."""
    return f"{metric}-{embedding}" if embedding else metric

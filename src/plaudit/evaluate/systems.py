"""Reading the systems of a comparison: one row per clip, with its values.

A system is a folder with `values.parquet` (plaudit.evaluate.values), which may hold several, or a CSV file, which holds
several where it has a column `system`. Columns of a CSV: `id` (or `prompt_id`) or `prompt` (or `caption`), and optional
`file` and `seed`; every other column of numbers is a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plaudit.audio import SUFFIXES
from plaudit.errors import EvaluationError
from plaudit.evaluate.evaluation import SUMMARY
from plaudit.evaluate.values import FAILED, VALUES, Values, metric_key
from plaudit.files import find_file
from plaudit.storage import read_json
from plaudit.tables import Row, read_table

ALIASES = {"prompt_id": "id", "caption": "prompt"}
DESCRIBING = ("id", "prompt", "file", "seed", "system", "error")
"""Columns that are about a clip; the others are metrics or, without any number, remarks."""


@dataclass(frozen=True)
class ComparedClip:
    """One clip of a system. `values` lacks the metrics that it has no value of; `error` says why it has none at all.

    id, prompt and seed are "" where the table has no such column; line: of the table, for messages.
    """

    line: int
    id: str
    prompt: str
    seed: str
    file: Path | None
    values: dict[str, float]
    error: str


@dataclass(frozen=True)
class System:
    """A system's clips, the metrics that any of them has, and the columns that are neither.

    path: what it was named by. models: an identity of the model behind a metric, by metric, where it is recorded;
    values of different models do not compare.
    """

    name: str
    source: Path
    clips: list[ComparedClip]
    metrics: list[str]
    remarks: list[str]
    path: str
    models: dict[str, str] = field(default_factory=dict)


def read_systems(named: Sequence[str | Path], systems_of: Callable[[str], list[System]] | None = None) -> list[System]:
    """The systems to be compared, in the order given; those of one name are called by their paths.

    systems_of: the systems behind one of the names; `systems_in` folders and tables where not given. EvaluationError
    where there are fewer than two, or two of one path.
    """
    systems = [system for one in named for system in (systems_of or systems_in)(str(one))]
    names = [system.name for system in systems]
    if len(names) < 2:
        raise EvaluationError(f"there is one system, {names[0]!r}; a comparison needs two: name another")
    apart = [replace(system, name=system.path) if names.count(system.name) > 1 else system for system in systems]
    called = [system.name for system in apart]
    if doubled := sorted({name for name in called if called.count(name) > 1}):
        raise EvaluationError(f"two systems are called {doubled[0]!r}; rename a folder, a file or a value of `system`")
    return apart


def systems_in(name: str) -> list[System]:
    """The systems of a folder with values, or those of a table; one line of error where malformed."""
    path = Path(name)
    if not path.is_dir():
        return _systems_of_table(path)
    if not (path / VALUES).is_file():
        raise EvaluationError(f"{path} has no {VALUES}; write it with plaudit evaluate CLIPS --output {path}")
    values, models = Values.read(path), models_behind(_settings_of(path))
    conditions = [""] if "" in values.conditions else values.conditions  # sweeps beside systems have fewer prompts
    parts = []
    for condition in conditions:
        of_condition = values.select(condition=condition)
        for system in of_condition.systems:
            name = " ".join(filter(None, (system, condition)))
            parts.append((name, of_condition.select(system=system)))
    if len(parts) == 1:
        return [system_of_values(values, path.resolve().name, path, str(path), models)]
    return [system_of_values(part, name, path, f"{path}:{name}", models) for name, part in parts]


def system_of_values(values: Values, name: str, folder: Path, path: str, models: dict[str, str]) -> System:
    """The one system of `values`, read from the table in `folder`."""
    clips: dict[tuple[str, int | None, str], ComparedClip] = {}
    metrics: dict[str, None] = {}
    for row in values.rows():
        if row["prompt_id"]:
            place = (row["prompt_id"], row["seed"], row["file"])
            if place not in clips:
                seed = "" if row["seed"] is None else str(row["seed"])
                file = folder / row["file"] if row["file"] else None
                clips[place] = ComparedClip(len(clips) + 1, row["prompt_id"], row["prompt"], seed, file, {}, "")
            if row["value"] is not None:
                metric = metric_key(row["metric"], row["embedding"])
                metrics[metric] = None
                clips[place].values[metric] = row["value"]
            elif row["note"].startswith(FAILED):
                clips[place] = replace(clips[place], error=row["note"].removeprefix(FAILED))
    return System(name, folder / VALUES, list(clips.values()), list(metrics), [], path, models)


def _systems_of_table(path: Path) -> list[System]:
    content = read_table(path, error=EvaluationError)
    rows = list(content)
    for row in rows:
        renamed = {ALIASES.get(name, name): value.strip() for name, value in row.items()}
        row.clear()
        row.update(renamed)
    if not rows:
        raise EvaluationError(f"{path} has no rows under its header; it needs one per clip")
    columns = list(rows[0])
    if len(columns) < len(content.columns):
        raise EvaluationError(f"{path} has both names of one column, {' or '.join(map(str, ALIASES.items()))}")
    if "id" not in columns and "prompt" not in columns:
        raise EvaluationError(f"{path} has no column 'id' or 'prompt' to pair clips by; its columns are {columns}")
    metrics, remarks = _metrics(path, rows, [name for name in columns if name not in DESCRIBING])
    if "system" not in columns:
        return [System(path.stem, path, [_clip(path, row, metrics) for row in rows], metrics, remarks, str(path))]
    systems: dict[str, list[Row]] = {}
    for row in rows:
        if not row["system"]:
            raise EvaluationError(f"{row.where}: column 'system' is empty; name the system")
        systems.setdefault(row["system"], []).append(row)
    return [
        System(name, path, [_clip(path, row, metrics) for row in group], metrics, remarks, f"{path}:{name}")
        for name, group in systems.items()
    ]


def is_clip_folder(path: Path) -> bool:
    """Whether a path is a folder of audio that has not been evaluated."""
    files = list(path.iterdir()) if path.is_dir() else []
    return any(f.suffix.lower() in SUFFIXES for f in files) and not {VALUES, "recipe.yaml"} & {f.name for f in files}


def models_behind(settings: Mapping[str, Any]) -> dict[str, str]:
    """The identities of the reward and the CLAP of an evaluation, from its settings."""
    identities = {"reward": settings.get("reward_identity"), "clap": settings.get("clap_digest")}
    return {metric: identity for metric, identity in identities.items() if identity}


def _settings_of(folder: Path) -> Mapping[str, Any]:
    return (read_json(folder / SUMMARY).get("settings") or {}) if (folder / SUMMARY).is_file() else {}


def _metrics(table: Path, rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns of numbers, and those of words; EvaluationError for one that holds both, or no finite number."""
    metrics, remarks = [], []
    for column in columns:
        cells = [(row, _number(row[column])) for row in rows if row[column]]
        if not any(value is not None for _, value in cells):
            remarks.append(column)
            continue
        for row, value in cells:
            if value is None or not math.isfinite(value):
                raise EvaluationError(
                    f"{row.where}: {column!r} is {row[column]!r}, not a finite number; correct it, or leave it empty "
                    "where the clip has no value"
                )
        metrics.append(column)
    if not metrics:
        raise EvaluationError(f"{table} has no column of numbers beside {', '.join(DESCRIBING)}; add one per metric")
    return metrics, remarks


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _clip(table: Path, row: Row, metrics: Sequence[str]) -> ComparedClip:
    if not row.get("id", "") and not row.get("prompt", ""):
        raise EvaluationError(f"{row.where}: neither id nor prompt; say which prompt the clip answers")
    error = row.get("error", "")
    if "seed" in row and not row["seed"] and not error:
        raise EvaluationError(f"{row.where}: column 'seed' is empty; give every clip its seed")
    file = row.get("file", "")
    return ComparedClip(
        line=row.line,
        id=row.get("id", ""),
        prompt=row.get("prompt", ""),
        seed=row.get("seed", ""),
        file=(find_file(file, table.parent, Path()) or table.parent / file) if file else None,
        values={} if error else {name: float(row[name]) for name in metrics if row[name]},
        error=error,
    )

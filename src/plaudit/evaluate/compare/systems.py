"""Reading what systems made of prompts: one row per clip, with its values, from what `plaudit evaluate` or others left.

A system is a folder with `clips.csv`, or a CSV file; a CSV with a column `system` holds several. Columns: `id` (or
`prompt_id`) or `prompt` (or `caption`), where wanted `file` and `seed`; every other column of numbers is a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from plaudit.audio import SUFFIXES
from plaudit.errors import EvaluationError
from plaudit.evaluate.results_table import CLIPS, SUMMARY
from plaudit.files import find_file
from plaudit.storage import read_json
from plaudit.tables import read_table

ALIASES = {"prompt_id": "id", "caption": "prompt"}
DESCRIBING = ("id", "prompt", "file", "seed", "system", "error")
"""Columns that are about a clip; the others are metrics or, without any number, remarks."""

CsvRow = tuple[int, dict[str, str]]


@dataclass(frozen=True)
class ComparedClip:
    """One clip of a system. `values` lacks the metrics that the clip has no value of; `error` says why it has none.

    id, prompt and seed are "" where the table has no such column; line is that of the table, for messages.
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

    path: what it was named by. models: an identity of the model behind a metric, by metric, where it is known: values
    of different models do not compare.
    """

    name: str
    source: Path
    clips: list[ComparedClip]
    metrics: list[str]
    remarks: list[str]
    path: str
    models: dict[str, str] = field(default_factory=dict)


def read_systems(
    named: Sequence[str | Path], systems_of: Callable[[str], list[System]] | None = None
) -> list[System]:
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
    """The system of a folder that `plaudit evaluate` wrote, or those of a table; one line of error where malformed."""
    path = Path(name)
    table = path / CLIPS if path.is_dir() else path
    if path.is_dir() and not table.is_file():
        raise EvaluationError(f"{path} has no {CLIPS}; {_how_to_evaluate(path)}")
    models = models_behind(path) if path.is_dir() else {}
    content = read_table(table)
    rows = [(row.line, {ALIASES.get(k, k): v.strip() for k, v in row.items()}) for row in content]
    if not rows:
        raise EvaluationError(f"{table} has no rows under its header; it needs one per clip")
    columns = list(rows[0][1])
    if len(columns) < len(content.columns):
        raise EvaluationError(f"{table} has both names of one column, {' or '.join(map(str, ALIASES.items()))}")
    if "id" not in columns and "prompt" not in columns:
        raise EvaluationError(f"{table} has no column 'id' or 'prompt' to pair clips by; its columns are {columns}")
    metrics, remarks = _metrics(table, rows, [name for name in columns if name not in DESCRIBING])
    own = path.resolve().name if path.is_dir() else path.stem
    if "system" not in columns:
        return [System(own, table, [_clip(table, row, metrics) for row in rows], metrics, remarks, str(path), models)]
    systems: dict[str, list[CsvRow]] = {}
    for line, row in rows:
        if not row["system"]:
            raise EvaluationError(f"{table} line {line}: column 'system' is empty; name the system")
        systems.setdefault(row["system"], []).append((line, row))
    return [
        System(name, table, [_clip(table, r, metrics) for r in own_rows], metrics, remarks, f"{path}:{name}", models)
        for name, own_rows in systems.items()
    ]


def _how_to_evaluate(folder: Path) -> str:
    """The command that makes what is compared: of a folder of clips, or of any other."""
    clips = any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())
    if clips:
        return f"evaluate its clips with plaudit evaluate {folder} --output {folder.name}-evaluation, and compare that"
    return f"write it with plaudit evaluate CLIPS --output {folder}"


def models_behind(folder: Path) -> dict[str, str]:
    """What the reward and the CLAP score of an evaluation are by, from its summary; empty where there is none."""
    if not (folder / SUMMARY).is_file():
        return {}
    settings = read_json(folder / SUMMARY).get("settings") or {}
    named = {"reward": settings.get("reward_identity"), "clap": settings.get("clap_digest")}
    return {metric: identity for metric, identity in named.items() if identity}


def _metrics(table: Path, rows: Sequence[CsvRow], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns of numbers, and those of words; EvaluationError for one that holds both, or no finite number."""
    metrics, remarks = [], []
    for column in columns:
        told = [(line, row[column], _number(row[column])) for line, row in rows if row[column]]
        if not any(value is not None for _, _, value in told):
            remarks.append(column)
            continue
        for line, text, value in told:
            if value is None or not math.isfinite(value):
                raise EvaluationError(
                    f"{table} line {line}: {column!r} is {text!r}, not a finite number; mend it, or leave it empty "
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


def _clip(table: Path, row: CsvRow, metrics: Sequence[str]) -> ComparedClip:
    line, told = row
    if not told.get("id", "") and not told.get("prompt", ""):
        raise EvaluationError(f"{table} line {line}: neither id nor prompt; say which prompt the clip answers")
    error = told.get("error", "")
    if "seed" in told and not told["seed"] and not error:
        raise EvaluationError(f"{table} line {line}: column 'seed' is empty; give every clip its seed")
    return ComparedClip(
        line=line,
        id=told.get("id", ""),
        prompt=told.get("prompt", ""),
        seed=told.get("seed", ""),
        file=_place(table, told["file"]) if told.get("file") else None,
        values={} if error else {name: float(told[name]) for name in metrics if told[name]},
        error=error,
    )


def _place(table: Path, file: str) -> Path:
    """A file as the table means it: beside the table, else from the working folder."""
    return find_file(file, table.parent, Path()) or table.parent / file

"""Cells of a sweep: a folder each, with a model's clips of the prompts and their scores, that appears whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.assets import read_json, write_json
from plaudit.chain.panel import Panel
from plaudit.errors import AudioError, ModelError, PromptError, RunError
from plaudit.evaluate.evaluator import StageScores
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.execution import Execution
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import SamplingSettings

CELL, UNJUDGED = "cell.json", "unjudged.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trial:
    """What all cells of a sweep have in common. seed: of the first prompt, prompt i has seed + i.

    sets: metrics of a set of clips that are measured besides the Frechet distance.
    """

    panel: Panel
    seed: int
    execution: Execution = field(default_factory=Execution)
    sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.panel.held_out.prompts) < 2:
            raise PromptError("a sweep over one prompt has no intervals; give at least two prompts")


@dataclass(frozen=True)
class Cell:
    """One model, sampled in one way. `of` says which model, as plain data; `load` is asked for it only if need be."""

    folder: Path
    load: Callable[[], TextToMusic]
    sampling: SamplingSettings
    of: dict[str, Any]


def fill_cells(trial: Trial, cells: Sequence[Cell], progress: Progress) -> list[StageScores | str]:
    """The scores of each cell's clips, made where they are missing; or, as text, why its clips cannot be judged.

    A cell that was cut off is continued. RunError, before anything is made, where a cell there is of something else.
    """
    for cell in cells:
        check_cell(trial, cell)
    found = []
    for number, cell in enumerate(cells, start=1):
        if not cell.folder.exists():
            _fill(trial, cell)
        found.append(read_cell(cell.folder))
        progress(number, len(cells))
    return found


def read_cell(folder: Path) -> StageScores | str:
    """The scores in a cell's folder, or why its clips cannot be judged."""
    reason = folder / UNJUDGED
    return str(read_json(reason)["reason"]) if reason.exists() else StageScores.load(folder)


def check_cell(trial: Trial, cell: Cell) -> None:
    """RunError where the cell's folder holds something else than this cell."""
    if not cell.folder.exists():
        return
    try:
        there = read_json(cell.folder / CELL)
    except ModelError as error:
        raise RunError(f"{cell.folder} is no cell of a sweep ({error}); choose another --output") from None
    if other := _first_difference(there, told(trial, cell)):
        raise RunError(f"{cell.folder} was made with another {other}; choose another --output, or remove it")


def told(trial: Trial, cell: Cell) -> dict[str, Any]:
    """What a cell is made of, as its `cell.json` says."""
    return {
        **cell.of,
        "sampling": cell.sampling.model_dump(mode="json"),
        "prompts": trial.panel.held_out.prompts,
        "seed": trial.seed,
        "metrics": list(trial.sets),
        "panel": trial.panel.identity,
    }


def _fill(trial: Trial, cell: Cell) -> None:
    draft, wanted = cell.folder.with_name(f".{cell.folder.name}.partial"), told(trial, cell)
    if draft.exists() and not ((draft / CELL).exists() and read_json(draft / CELL) == wanted):
        shutil.rmtree(draft)  # cut off before, and since asked for otherwise
    write_json(draft / CELL, wanted)
    prompts = trial.panel.held_out.prompts
    requests = [ClipRequest(f"{i:04d}", prompt, trial.seed + i) for i, prompt in enumerate(prompts)]
    try:
        clips = make_clips(cell.load(), requests, cell.sampling, draft / "clips", trial.execution)
        trial.panel.judge(clips, trial.sets).save(draft)
    except AudioError as error:  # a model that has collapsed may well be silent
        write_json(draft / UNJUDGED, {"reason": str(error)})
    for torn in [path for path in draft.rglob(".*") if path.is_file()]:  # what a kill left half written
        torn.unlink()
    os.replace(draft, cell.folder)


def _first_difference(there: Any, wanted: dict[str, Any], prefix: str = "") -> str:
    """The name of the first thing that two descriptions don't share; "" where they are the same."""
    if not isinstance(there, dict):
        return prefix or "version"
    for name in [*wanted, *there]:
        own, other = wanted.get(name), there.get(name)
        if own != other:
            if isinstance(own, dict) and isinstance(other, dict):
                return _first_difference(other, own, f"{prefix}{name}.")
            return f"{prefix}{name}"
    return ""

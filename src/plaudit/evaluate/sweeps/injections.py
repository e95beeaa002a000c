"""The cross-load table: what weights trained under one score injection are worth in the forward pass of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from plaudit.errors import RunError
from plaudit.evaluate.changes import SEED, Change, changes_between, clip_values, corrected
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class CrossCell:
    """One model run under one injection. `native`: it was trained under that one. scores: or why there are none."""

    model: str
    run: str
    native: bool
    scores: StageScores | str


@dataclass(frozen=True)
class CrossNumbers:
    """The numbers of one cell; all None where its clips cannot be judged, which `unjudged` explains.

    changes: against the same weights in the forward pass that they were trained in, paired by prompt.
    """

    model: str
    run: str
    native: bool
    reward: Interval | None = None
    clap: Interval | None = None
    frechet: Interval | None = None
    utility: Interval | None = None
    concepts: Interval | None = None
    sets: list[MetricResult] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    unjudged: str = ""


@dataclass(frozen=True)
class CrossTable:
    """All cells, model by model; p-values of changes are corrected together for all `tests`. clips: of each cell."""

    models: list[str]
    injections: list[str]
    cells: list[CrossNumbers]
    tests: int
    clips: int

    def cell(self, model: str, run: str) -> CrossNumbers:
        """One cell."""
        return next(cell for cell in self.cells if (cell.model, cell.run) == (model, run))


def cross_table(cells: Sequence[CrossCell]) -> CrossTable:
    """The numbers of all cells, and how each differs from its model's own injection; RunError where none has any."""
    if cells and all(isinstance(cell.scores, str) for cell in cells):
        raise RunError(f"no cell of the table can be judged; the first: {cells[0].scores}")
    natives = {c.model: c.scores for c in cells if c.native and not isinstance(c.scores, str)}
    groups, tests = corrected([_against(cell, natives.get(cell.model)) for cell in cells])
    return CrossTable(
        models=list(dict.fromkeys(cell.model for cell in cells)),
        injections=list(dict.fromkeys(cell.run for cell in cells)),
        cells=[_numbers(cell, changes) for cell, changes in zip(cells, groups, strict=True)],
        tests=tests,
        clips=max((len(cell.scores) for cell in cells if not isinstance(cell.scores, str)), default=0),
    )


def _against(cell: CrossCell, native: StageScores | None) -> list[Change]:
    if cell.native or native is None or isinstance(cell.scores, str):
        return []
    return changes_between(cell.scores, native)


def _numbers(cell: CrossCell, changes: list[Change]) -> CrossNumbers:
    if isinstance(cell.scores, str):
        return CrossNumbers(cell.model, cell.run, cell.native, unjudged=cell.scores)
    scores = cell.scores
    return CrossNumbers(
        cell.model,
        cell.run,
        cell.native,
        reward=_mean(scores, "reward"),
        clap=_mean(scores, "clap"),
        frechet=scores.frechet_interval,
        utility=_mean(scores, "utility"),
        concepts=_mean(scores, "concepts"),
        sets=scores.sets,
        changes=changes,
    )


def _mean(scores: StageScores, metric: str) -> Interval | None:
    values = clip_values(scores, metric)
    return None if values is None else bootstrap_mean(values[~np.isnan(values)], SEED)

"""Sweeps: one decision varied, everything else the same, every cell with its interval."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from plaudit import loading
from plaudit.errors import AudioError, ModelError, PromptError, RunError
from plaudit.evaluate.evaluation import EvaluationSetup
from plaudit.evaluate.pages.sweep import Sweep
from plaudit.evaluate.values import Values
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic, read_model_config
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.reporting import Progress
from plaudit.storage import WholeFolder, read_json, write_json

CELL, FAILURE = "cell.json", "failure.json"


@dataclass(frozen=True)
class SweepCell:
    """One model, sampled in one way. system, condition: as in its values. model: its identity, as plain data; `load` is
    called only where clips are missing."""

    folder: Path
    load: Callable[[], TextToMusic]
    sampling: SamplingSettings
    model: dict[str, Any]
    system: str
    condition: str


def fill_cells(
    setup: EvaluationSetup, cells: Sequence[SweepCell], execution: Execution, progress: Progress
) -> list[Values | str]:
    """The values of each cell's clips, generated where they are missing; or, as text, why they cannot be measured.

    A cell that was cut off is continued. RunError, before anything is generated, where a cell has other settings.
    """
    for cell in cells:
        check_cell(setup, cell)
    results = []
    for number, cell in enumerate(cells, start=1):
        if not cell.folder.exists():
            _fill(setup, cell, execution)
        results.append(read_cell(cell.folder))
        progress(number, len(cells))
    return results


def read_cell(folder: Path) -> Values | str:
    """The values in a cell's folder, or why its clips cannot be measured."""
    reason = folder / FAILURE
    return str(read_json(reason)["reason"]) if reason.exists() else Values.read(folder)


def check_cell(setup: EvaluationSetup, cell: SweepCell) -> None:
    """PromptError for a single prompt; RunError where the cell's folder holds something else than this cell."""
    if len(setup.held_out.prompts) < 2:
        raise PromptError("a sweep over one prompt has no intervals; give at least two prompts")
    if not cell.folder.exists():
        return
    try:
        changed = _whole(setup, cell).differences()
    except ModelError as error:
        raise RunError(f"{cell.folder} is no cell of a sweep ({error}); choose another --output") from None
    if changed:
        first = next(iter(changed))
        raise RunError(f"{cell.folder} was made with another {first}; choose another --output, or remove it")


def _whole(setup: EvaluationSetup, cell: SweepCell) -> WholeFolder:
    identity = {
        **cell.model,
        "sampling": cell.sampling.model_dump(mode="json"),
        "prompts": setup.held_out.prompts,
        "seed": setup.seed,
        "metrics": list(setup.metrics),
        "evaluators": dict(setup.evaluators.identity),
    }
    return WholeFolder(cell.folder, identity, CELL)


def _fill(setup: EvaluationSetup, cell: SweepCell, execution: Execution) -> None:
    requests = [ClipRequest(f"{i:04d}", prompt, setup.seed + i) for i, prompt in enumerate(setup.held_out.prompts)]
    with _whole(setup, cell).draft(resume=True) as draft:
        try:
            clips = generate_clips(cell.load(), requests, cell.sampling, draft / "clips", execution)
            setup.evaluate(clips, draft, system=cell.system, condition=cell.condition)
        except AudioError as error:  # a model that has collapsed may well be silent
            write_json(draft / FAILURE, {"reason": str(error)})


def swept_models(named: Sequence[str]) -> dict[str, Path]:
    """Model folders by label, of names, folders, or LABEL=NAME. ModelError where one is unknown or two have one label.

    A label that is not given is the name, or the last part of a folder's path; the last two where the last is shared.
    """
    labelled = [_split(one) for one in named]
    folders = [loading.model_folder(name, loading.MODELS) for _, name in labelled]
    for folder in folders:
        read_model_config(folder)
    short = [label or _last(name, 1) for label, name in labelled]
    labels = [
        one if label or short.count(one) == 1 else _last(name, 2)
        for one, (label, name) in zip(short, labelled, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise ModelError(f"two models are called {label!r}; give one another name with LABEL=MODEL")
    return dict(zip(labels, folders, strict=True))


def _split(text: str) -> tuple[str, str]:
    """(label or "", name); a path that exists is one, even with an equals sign in it."""
    label, equals, name = text.partition("=")
    if not equals or Path(text).exists():
        return "", text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label) or not name:
        raise ModelError(f"{text!r} is no LABEL=MODEL; a label is letters, digits, dots, dashes and underscores")
    return label, name


def _last(name: str, parts: int) -> str:
    if name in loading.MODELS:
        return name
    return "-".join(Path(name).absolute().parts[-parts:])


SCORES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
"""What the paper's figure asks for, in the reward's units."""

DEVIATIONS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Scores in standard deviations of a model's training rewards (ours)."""


def cell_name(score: float) -> str:
    """The folder of a score's cell: score-1.5."""
    return f"score-{score:g}"


def check_scores(scores: Sequence[float]) -> None:
    """PromptError where scores cannot be swept over: fewer than two, twice the same, or not finite."""
    if wrong := [score for score in scores if not math.isfinite(score)]:
        raise PromptError(f"score {wrong[0]} is not a finite number")
    names = [cell_name(score) for score in scores]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise PromptError(f"score {doubled[0].removeprefix('score-')} is given twice; give each once")
    if len(scores) < 2:
        raise PromptError("a sweep needs at least two scores")


def takes_score(folder: Path, label: str) -> None:
    """ModelError where a model has no way for a score to enter it."""
    if read_model_config(folder).backbone.injection == "none":
        raise ModelError(f"{label} takes no score (its injection is none); sweep models that were trained with one")


def sweep_scores(
    setup: EvaluationSetup,
    model: Path,
    scores: Sequence[float],
    folder: Path,
    *,
    label: str,
    sampling: SamplingSettings,
    execution: Execution = DEFAULT_EXECUTION,
    standardized: bool = False,
    device: str | torch.device = "auto",
    progress: Progress = lambda done, total: None,
) -> list[Values | str]:
    """The values of the clips at each conditioning score; cells lie in `folder`.

    model: a model folder, called `label`. standardized: scores are standard deviations from the mean of the rewards
    that the model was trained on.
    """
    check_scores(scores)
    takes_score(model, str(model))

    @cache
    def load() -> TextToMusic:
        return loading.load(str(model), device)

    identity = {"model": loading.model_digest(model)}
    mean, deviation = _training_rewards(load()) if standardized else (0.0, 1.0)
    cells = [
        SweepCell(
            folder / cell_name(score), load, sampling.model_copy(update={"score": mean + deviation * score}),
            identity, label, f"score={score:g}",
        )
        for score in scores
    ]  # fmt: skip
    return fill_cells(setup, cells, execution, progress)


def swept(label: str, scores: Sequence[float], results: Sequence[Values | str]) -> Sweep:
    """A sweep for the report: the scores whose clips were measured, and why the others were not."""
    pairs = list(zip(scores, results, strict=True))
    points = [(score, values) for score, values in pairs if not isinstance(values, str)]
    failed = {score: reason for score, reason in pairs if isinstance(reason, str)}
    return Sweep(label, [score for score, _ in points], [values for _, values in points], failed)


def _training_rewards(model: TextToMusic) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(model.backbone.score_mean), float(model.backbone.score_std)

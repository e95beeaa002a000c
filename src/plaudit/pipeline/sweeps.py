"""Sweeps: one decision varied, everything else the same, every cell with its interval."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from plaudit import loading
from plaudit.errors import AudioError, ModelError, PromptError, RunError
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.pages.sweep import Sweep
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.pipeline.evaluators import EvaluatorPanel
from plaudit.storage import WholeFolder, read_json, write_json

CELL, FAILURES = "cell.json", "unjudged.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SweepSetup:
    """What all cells of a sweep have in common. seed: of the first prompt, prompt i has seed + i.

    sets: metrics of a set of clips that are measured besides the Frechet distance.
    """

    panel: EvaluatorPanel
    seed: int
    execution: Execution = field(default_factory=Execution)
    sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.panel.held_out.prompts) < 2:
            raise PromptError("a sweep over one prompt has no intervals; give at least two prompts")


@dataclass(frozen=True)
class SweepCell:
    """One model, sampled in one way. `of` says which model, as plain data; `load` is asked for it only if need be."""

    folder: Path
    load: Callable[[], TextToMusic]
    sampling: SamplingSettings
    of: dict[str, Any]


def fill_cells(trial: SweepSetup, cells: Sequence[SweepCell], progress: Progress) -> list[StageScores | str]:
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
    reason = folder / FAILURES
    return str(read_json(reason)["reason"]) if reason.exists() else StageScores.load(folder)


def check_cell(trial: SweepSetup, cell: SweepCell) -> None:
    """RunError where the cell's folder holds something else than this cell."""
    if not cell.folder.exists():
        return
    try:
        changed = _whole(trial, cell).differences()
    except ModelError as error:
        raise RunError(f"{cell.folder} is no cell of a sweep ({error}); choose another --output") from None
    if changed:
        first = next(iter(changed))
        raise RunError(f"{cell.folder} was made with another {first}; choose another --output, or remove it")


def cell_provenance(trial: SweepSetup, cell: SweepCell) -> dict[str, Any]:
    """What a cell is made of, as its `cell.json` says."""
    return {
        **cell.of,
        "sampling": cell.sampling.model_dump(mode="json"),
        "prompts": trial.panel.held_out.prompts,
        "seed": trial.seed,
        "metrics": list(trial.sets),
        "panel": trial.panel.identity,
    }


def _whole(trial: SweepSetup, cell: SweepCell) -> WholeFolder:
    return WholeFolder(cell.folder, cell_provenance(trial, cell), CELL)


def _fill(trial: SweepSetup, cell: SweepCell) -> None:
    prompts = trial.panel.held_out.prompts
    requests = [ClipRequest(f"{i:04d}", prompt, trial.seed + i) for i, prompt in enumerate(prompts)]
    with _whole(trial, cell).draft(resume=True) as draft:
        try:
            clips = generate_clips(cell.load(), requests, cell.sampling, draft / "clips", trial.execution)
            trial.panel.evaluate(clips, trial.sets).save(draft)
        except AudioError as error:  # a model that has collapsed may well be silent
            write_json(draft / FAILURES, {"reason": str(error)})


def swept_models(named: Sequence[str]) -> dict[str, Path]:
    """Model folders by label, of names, folders, or LABEL=NAME. ModelError where one is unknown or two have one label.

    A label that is not given is the name, or the last part of a folder's path; the last two where the last is shared.
    """
    given = [_split(one) for one in named]
    folders = [loading.model_folder(name, loading.MODELS) for _, name in given]
    for folder in folders:
        read_model_config(folder)
    short = [label or _last(name, 1) for label, name in given]
    labels = [
        one if label or short.count(one) == 1 else _last(name, 2)
        for one, (label, name) in zip(short, given, strict=True)
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
"""What is asked for in standard deviations of a model's training rewards (ours)."""


def cell_name(score: float) -> str:
    """The folder of a score's cell: score-1.5."""
    return f"score-{score:g}"


def check_scores(scores: Sequence[float]) -> None:
    """PromptError where scores cannot be swept over: fewer than two, twice the same, or not finite."""
    if wrong := [score for score in scores if not math.isfinite(score)]:
        raise PromptError(f"score {wrong[0]} cannot be asked for; scores are finite numbers")
    names = [cell_name(score) for score in scores]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise PromptError(f"score {doubled[0].removeprefix('score-')} is asked for twice; give each once")
    if len(scores) < 2:
        raise PromptError("a sweep needs at least two scores")


def takes_score(folder: Path, label: str) -> None:
    """ModelError where a model has no way for a score to enter it."""
    if read_model_config(folder).backbone.injection == "none":
        raise ModelError(f"{label} takes no score (its injection is none); sweep models that were trained with one")


def sweep_scores(
    trial: SweepSetup,
    model: Path,
    scores: Sequence[float],
    folder: Path,
    *,
    sampling: SamplingSettings,
    standardized: bool = False,
    device: str = "auto",
    progress: Progress = lambda done, total: None,
) -> list[StageScores | str]:
    """The scores of the clips at each score asked for; cells lie in `folder`.

    model: a model folder. standardized: scores are standard deviations from the mean of the rewards that the model was
    trained on.
    """
    check_scores(scores)
    takes_score(model, str(model))

    @cache
    def load() -> TextToMusic:
        return loading.load(str(model), device)

    of = {"model": loading.model_digest(model)}
    mean, spread = _training_rewards(load()) if standardized else (0.0, 1.0)
    cells = [
        SweepCell(folder / cell_name(score), load, sampling.model_copy(update={"score": mean + spread * score}), of)
        for score in scores
    ]
    return fill_cells(trial, cells, progress)


def swept(label: str, scores: Sequence[float], found: Sequence[StageScores | str]) -> Sweep:
    """A sweep as reports take it: the points whose clips could be judged, and why the others could not."""
    judged = [(score, point) for score, point in zip(scores, found, strict=True) if not isinstance(point, str)]
    silent = {score: point for score, point in zip(scores, found, strict=True) if isinstance(point, str)}
    return Sweep(label, [score for score, _ in judged], [point for _, point in judged], silent)


def _training_rewards(model: TextToMusic) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(model.backbone.score_mean), float(model.backbone.score_std)

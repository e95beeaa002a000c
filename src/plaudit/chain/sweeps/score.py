"""The sweep over the score asked for: one model, the same prompts and seeds, one cell per score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from plaudit import hub
from plaudit.chain.sweeps.cells import Cell, Progress, Trial, fill_cells
from plaudit.errors import ModelError, PromptError
from plaudit.evaluate.evaluator import StageScores
from plaudit.evaluate.sweeps.score import Sweep
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.generate.settings import SamplingSettings

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
    trial: Trial,
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
        return hub.load(str(model), device)

    of = {"model": hub.model_digest(model)}
    mean, spread = _training_rewards(load()) if standardized else (0.0, 1.0)
    cells = [
        Cell(folder / cell_name(score), load, sampling.model_copy(update={"score": mean + spread * score}), of)
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

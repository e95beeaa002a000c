"""What differs between two sets of clips of the same prompts and seeds, metric by metric, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from plaudit.evaluate.evaluator import StageScores, frechet_difference
from plaudit.evaluate.metrics import lower_is_better
from plaudit.statistics import (
    EffectSize,
    Interval,
    bca_mean,
    differences,
    effect_size,
    holm,
    paired_difference,
    without_spread,
)

CHANGE_SEED = 0
"""Of every bootstrap of reports and sweeps: the same scores give the same numbers."""

CLIP_METRICS = ("reward", "clap", "concepts", "utility")
"""Metrics that every clip has by itself, in the order of tables; what is not known is left out."""


@dataclass(frozen=True)
class Change:
    """One metric against what was before, with its BCa interval. A distance, which no clip has by itself, has the
    bootstrap's centred interval and neither tests nor an effect size.

    p_t, p_wilcoxon: of paired tests; p_holm is the paired t-test's, corrected for all tests of the table together.
    effect: in standard deviations of the differences from prompt to prompt. clips: how many the change is over.
    """

    metric: str
    difference: Interval
    p_t: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None
    effect: EffectSize | None = None
    clips: int | None = None

    @property
    def established(self) -> bool:
        """Whether the interval excludes zero and, where there is a test, the corrected p-value is below 0.05."""
        return self.difference.excludes_zero and (self.p_holm is None or self.p_holm < 0.05)

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "" where nothing is established."""
        if not self.established:
            return ""
        return "better" if (self.difference.mean < 0) == lower_is_better(self.metric) else "worse"


def clip_values(scores: StageScores, metric: str) -> np.ndarray | None:
    """A metric of every clip [B], NaN where a clip has none; None where it is not known of any."""
    values = getattr(scores, metric)
    return None if values is None or np.isnan(values).all() else values


def changes_between(now: StageScores, before: StageScores, metrics: Sequence[str] = CLIP_METRICS) -> list[Change]:
    """The change in each of `metrics` that both have, over the clips that both have it of, and in the distance."""
    changes = []
    for metric in metrics:
        mine, theirs = clip_values(now, metric), clip_values(before, metric)
        if mine is not None and theirs is not None:
            both = ~(np.isnan(mine) | np.isnan(theirs))
            if both.sum() > 1:
                changes.append(_paired(metric, mine[both], theirs[both]))
    changes.append(Change("frechet", frechet_difference(now, before), clips=len(now)))
    return changes


def _paired(metric: str, now: np.ndarray, before: np.ndarray) -> Change:
    gaps = differences(now, before)
    if without_spread(gaps):  # no test says anything about a constant
        constant = abs(gaps[0]) > 1e-12
        p = None if constant else 1.0
        return Change(metric, bca_mean(gaps, CHANGE_SEED), p, p, clips=len(gaps))
    paired, effect = paired_difference(now, before, CHANGE_SEED), effect_size(now, before)
    return Change(metric, paired.difference, paired.p_t, paired.p_wilcoxon, effect=effect, clips=len(gaps))


def corrected(groups: Sequence[Sequence[Change]]) -> tuple[list[list[Change]], int]:
    """The same changes with Holm's correction over every paired t-test in them, and how many tests those are."""
    tests = [change.p_t for group in groups for change in group if change.p_t is not None]
    p_values = iter(holm(tests))
    finished = [[c if c.p_t is None else replace(c, p_holm=next(p_values)) for c in group] for group in groups]
    return finished, len(tests)

"""The table of a comparison: each metric of each two systems, how sure a difference is, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from plaudit.errors import EvaluationError, listed
from plaudit.evaluate.compare.pairing import Pairing
from plaudit.evaluate.metrics import lower_is_better
from plaudit.evaluate.pages.html import flatten_row
from plaudit.statistics import (
    LEVEL,
    RESAMPLES,
    Array,
    EffectSize,
    Equivalence,
    Interval,
    benjamini_hochberg,
    detectable_effect,
    effect_size,
    equivalence_test,
    holm,
    mixed_difference,
    paired_difference,
    prompts_needed,
    without_spread,
)

ALPHA = 0.05
MARGIN = 0.2
"""The margin of equivalence where none is stated: this many standard deviations of the metric from prompt to prompt,
the mean of both systems' variances (ours; a fifth is what Cohen calls a small effect)."""


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems over `prompts` prompts with `seeds` seeds each: second minus first.

    difference: with its BCa interval, or, for several seeds, that of the mixed model. t_interval: that of Student's t.
    p: of the paired t-test, or of the mixed model; p_holm and p_bh are that one corrected over the whole table.
    p_wilcoxon, p_permutation: of the prompts' means over seeds. effect: in standard deviations of these differences.
    equivalence: with p_holm over the table's tests of equivalence. prompts_needed: for a difference as large as this
    one, None where no number is enough. detectable: the least difference that these prompts find, in the metric's
    units. Both are for a power of 0.8, a paired t-test at 0.05 and as many seeds.
    """

    metric: str
    first: str
    second: str
    prompts: int
    seeds: int
    mean_first: float
    mean_second: float
    difference: Interval
    t_interval: Interval
    method: str
    p: float
    p_wilcoxon: float
    p_permutation: float
    effect: EffectSize
    equivalence: Equivalence
    prompts_needed: int | None
    detectable: float
    p_holm: float = 1.0
    p_bh: float = 1.0
    equivalence_p_holm: float = 1.0

    @property
    def established(self) -> bool:
        """Whether the interval excludes zero and the corrected p-value is below 0.05."""
        return self.difference.excludes_zero and self.p_holm < ALPHA

    @property
    def equivalent(self) -> bool:
        """Whether the difference is smaller than the margin, corrected over the table."""
        return self.equivalence_p_holm < ALPHA

    @property
    def verdict(self) -> str:
        """ "better", "worse", "equivalent" or "undecided" of the second system; "(negligible)" within the margin."""
        if self.established:
            better = (self.difference.mean > 0) != lower_is_better(self.metric)
            return ("better" if better else "worse") + (" (negligible)" if self.equivalent else "")
        return "equivalent" if self.equivalent else "undecided"


@dataclass(frozen=True)
class ComparisonTable:
    """All comparisons of a pairing, metric by metric, pair by pair.

    untested: a sentence for each metric of two systems whose differences leave nothing to test.
    """

    pairing: Pairing
    rows: list[Comparison]
    margins: dict[str, float] = field(default_factory=dict)
    untested: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """The metrics of the rows."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def of_pair(self, first: str, second: str) -> list[Comparison]:
        """The rows of one pair of systems."""
        return [row for row in self.rows if (row.first, row.second) == (first, second)]

    def to_json(self) -> dict[str, Any]:
        """Every number, and with what it was found."""
        pairing = self.pairing
        return {
            "systems": pairing.systems,
            "prompts": len(pairing.prompts),
            "seeds": pairing.seeds,
            "shared_seeds": pairing.shared_seeds,
            "left_out": pairing.left_out,
            "notes": pairing.notes,
            "untested": self.untested,
            "settings": {"level": LEVEL, "resamples": RESAMPLES, "stated_margins": self.margins, "margin": MARGIN},
            "comparisons": [{**asdict(row), "verdict": row.verdict} for row in self.rows],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """The same as flat rows for CSV."""
        return [flatten_row({**asdict(row), "verdict": row.verdict}) for row in self.rows]


def compare(pairing: Pairing, margins: Mapping[str, float] | None = None, seed: int = 0) -> ComparisonTable:
    """Compare every two systems in every metric; EvaluationError where no metric leaves anything to test.

    margins: of equivalence, by metric, in its units; MARGIN standard deviations for the others.
    """
    margins = dict(margins or {})
    for name, margin in margins.items():
        if name not in pairing.metrics:
            raise EvaluationError(f"--margin {name}: no such metric; compared are {', '.join(pairing.metrics)}")
        if not (np.isfinite(margin) and margin > 0):
            raise EvaluationError(f"--margin {name}={margin:g}: a margin is a number above zero")
    rows, untested = list[Comparison](), list[str]()
    for metric in pairing.metrics:
        for first, second in combinations(pairing.systems, 2):
            if reason := _untestable(pairing, metric, first, second):
                untested.append(reason)
            else:
                rows.append(_compared(pairing, metric, first, second, margins.get(metric), seed))
    if not rows:
        raise EvaluationError(f"there is nothing to test: {listed(untested, 5)}; is one a copy of the other?")
    return ComparisonTable(pairing, _corrected(rows), margins, untested)


def _untestable(pairing: Pairing, metric: str, first: str, second: str) -> str:
    """Why two systems' differences in a metric cannot be tested; empty where they can."""
    gaps = (pairing.values(metric, second) - pairing.values(metric, first)).mean(axis=1)
    if not without_spread(gaps):
        return ""
    same = "are the same" if abs(gaps[0]) <= 1e-12 else f"differ by {gaps[0]:g}"
    return f"{metric!r} of {first} and {second} {same} for every prompt"


def _compared(
    pairing: Pairing, metric: str, first: str, second: str, margin: float | None, seed: int
) -> Comparison:
    before, after = pairing.values(metric, first), pairing.values(metric, second)  # [P, K]
    means = before.mean(axis=1), after.mean(axis=1)
    gaps = means[1] - means[0]
    paired = paired_difference(means[1], means[0], seed)
    effect = effect_size(means[1], means[0])
    difference, error, freedom, p, method = paired.difference, _error(gaps), len(gaps) - 1.0, paired.p_t, "paired t"
    if pairing.seeds > 1:
        mixed = mixed_difference(after - before, pairing.shared_seeds)
        difference, error, freedom, p = mixed.difference, mixed.error, mixed.freedom, mixed.p
        method = "mixed model: prompt and seed" if pairing.shared_seeds else "mixed model: prompt"
    spread = float(np.sqrt((means[0].var(ddof=1) + means[1].var(ddof=1)) / 2))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Comparison(
        metric=metric,
        first=first,
        second=second,
        prompts=len(gaps),
        seeds=pairing.seeds,
        mean_first=float(before.mean()),
        mean_second=float(after.mean()),
        difference=difference,
        t_interval=Interval(difference.mean, difference.mean - reach, difference.mean + reach),
        method=method,
        p=p,
        p_wilcoxon=paired.p_wilcoxon,
        p_permutation=paired.p_permutation,
        effect=effect,
        equivalence=equivalence_test(difference.mean, error, freedom, margin or MARGIN * spread),
        prompts_needed=prompts_needed(effect.d),
        detectable=detectable_effect(len(gaps)) * float(gaps.std(ddof=1)),
    )


def _error(gaps: Array) -> float:
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def _corrected(rows: Sequence[Comparison]) -> list[Comparison]:
    tests = [row.p for row in rows]
    same = holm([row.equivalence.p for row in rows])
    return [
        replace(row, p_holm=strict, p_bh=discovery, equivalence_p_holm=equal)
        for row, strict, discovery, equal in zip(rows, holm(tests), benjamini_hochberg(tests), same, strict=True)
    ]

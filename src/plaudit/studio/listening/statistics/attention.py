"""Time and attention of listeners, and the rules that exclude them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from plaudit.studio.listening.rules import ExclusionRules
from plaudit.studio.listening.statistics.agreement import repeat_agreement
from plaudit.studio.listening.statistics.answers import Answer


@dataclass(frozen=True)
class ListenerFigures:
    """Time and attention of a listener.

    seconds, listened: median seconds to an answer, and median seconds heard of both sides together.
    obvious: obvious pairs right, and how many there were; repeats: the same answer given again, and how many.
    left: the fraction of decided answers that chose the left side; p_side: two-sided binomial p-value of that.
    """

    listener: str
    answers: int
    ties: int
    both_bad: int
    seconds: float | None
    listened: float | None
    obvious: tuple[int, int]
    repeats: tuple[int, int]
    left: float | None
    p_side: float | None


def listener_figures(answers: Sequence[Answer]) -> list[ListenerFigures]:
    """Of every listener, in the order of their first answers; practice pairs are left out."""
    groups: dict[str, list[Answer]] = {}
    for x in answers:
        if x.kind != "practice":
            groups.setdefault(x.listener, []).append(x)
    repeats = repeat_agreement(answers)[0]
    figures = []
    for listener, group in groups.items():
        obvious = [x for x in group if x.kind == "obvious" and x.expected is not None]
        decided = [x for x in group if x.winner in ("a", "b")]
        left = sum((x.winner == "a") != x.swapped for x in decided)
        figures.append(
            ListenerFigures(
                listener=listener,
                answers=len(group),
                ties=sum(x.winner == "tie" for x in group),
                both_bad=sum(x.winner == "both_bad" for x in group),
                seconds=_median(x.response_ms / 1000 for x in group if x.response_ms is not None),
                listened=_median(
                    x.listened_a + x.listened_b for x in group if x.listened_a is not None and x.listened_b is not None
                ),
                obvious=(sum(x.winner == x.expected for x in obvious), len(obvious)),
                repeats=repeats.get(listener, (0, 0)),
                left=left / len(decided) if decided else None,
                p_side=float(stats.binomtest(left, len(decided)).pvalue) if decided else None,
            )
        )
    return figures


def _median(values: Iterable[float]) -> float | None:
    sample = list(values)
    return float(np.median(sample)) if sample else None


SIDE_P = 0.01
"""A preference for one side excludes a listener only where it is this improbable by chance."""


def exclusions(figures: Sequence[ListenerFigures], rules: ExclusionRules) -> dict[str, list[str]]:
    """The listeners to leave out, each with the reasons."""
    out: dict[str, list[str]] = {}
    for f in figures:
        reasons = []
        for name, (right, total), least in (
            ("obvious pairs right", f.obvious, rules.min_obvious),
            ("repeats answered the same", f.repeats, rules.min_repeats),
        ):
            if least is not None and total and right / total < least:
                reasons.append(f"{right} of {total} {name}, below {least:.0%}")
        for name, value, bound in (
            ("s to an answer", f.seconds, rules.min_seconds),
            ("s heard of a pair", f.listened, rules.min_listened),
        ):
            if bound is not None and value is not None and value < bound:
                reasons.append(f"median {value:.1f} {name}, below {bound:g} s")
        if rules.max_one_side is not None and f.left is not None and f.p_side is not None and f.p_side < SIDE_P:
            share, side = max((f.left, "left"), (1 - f.left, "right"))
            if share > rules.max_one_side:
                reasons.append(f"chose the {side} side {share:.0%} of the time, above {rules.max_one_side:.0%}")
        if rules.min_answers is not None and f.answers < rules.min_answers:
            reasons.append(f"{f.answers} answers, below {rules.min_answers}")
        if reasons:
            out[f.listener] = reasons
    return out

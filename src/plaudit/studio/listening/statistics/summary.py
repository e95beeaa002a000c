"""All figures of a preference test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.reward.leaderboard import RESAMPLES, Board, bradley_terry
from plaudit.statistics import POWER, Interval
from plaudit.studio.listening.rules import ExclusionRules
from plaudit.studio.listening.statistics.agreement import Agreement, listener_agreement, repeat_agreement
from plaudit.studio.listening.statistics.answers import Answer, counted
from plaudit.studio.listening.statistics.attention import ListenerFigures, exclusions, listener_figures
from plaudit.studio.listening.statistics.confidence import HORIZON
from plaudit.studio.listening.statistics.decisions import MARGIN, Decision, decide
from plaudit.studio.listening.statistics.intransitivity import Intransitivity, intransitivity
from plaudit.studio.listening.statistics.win_rates import PairRecord, win_rates


@dataclass(frozen=True)
class Summary:
    """All figures of a preference test."""

    answers: int
    counted: int
    board: Board
    win_rates: list[PairRecord]
    agreement: Agreement
    repeats: Interval | None
    intransitivity: Intransitivity
    listeners: list[ListenerFigures]
    excluded: dict[str, list[str]]
    decisions: list[Decision]


def summarize(
    answers: Sequence[Answer],
    rules: ExclusionRules | None = None,
    systems: Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] | None = None,
    margin: float = MARGIN,
    power: float = POWER,
    horizon: int = HORIZON,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Every figure of answers in the order in which they were given; `pairs` are the comparisons asked about."""
    figures = listener_figures(answers)
    excluded = exclusions(figures, rules or ExclusionRules())
    kept = counted(answers, excluded)
    return Summary(
        answers=len(answers),
        counted=len(kept),
        board=bradley_terry(kept, seed=seed, resamples=resamples, systems=systems),
        win_rates=win_rates(kept, seed, resamples),
        agreement=listener_agreement(kept, seed),
        repeats=repeat_agreement([x for x in answers if x.listener not in excluded], seed)[1],
        intransitivity=intransitivity(kept),
        listeners=figures,
        excluded=excluded,
        decisions=decide(kept, pairs, margin, power, horizon),
    )

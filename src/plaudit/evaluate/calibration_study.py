"""What anchor calibration is worth: accuracy on votes that it has not seen, by the number of votes that it has."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plaudit.errors import VoteError
from plaudit.evaluate.statistics import Array, Interval, holm, percentile_interval
from plaudit.reward.calibration import Calibration, fit_calibration
from plaudit.reward.scored_votes import ScoredVote

RESAMPLES = 5000


@dataclass(frozen=True)
class StudyRow:
    """Accuracy after calibration on `votes` votes, mean of the splits, and what it gains over none.

    splits: each split's accuracy. The intervals and the p-value of the gain (sign flips, corrected by Holm over the
    rows) take the vote as the unit: one that is in several splits' test halves counts once (ours).
    """

    votes: int
    accuracy: Interval
    splits: list[float]
    gain: Interval
    p_value: float
    p_holm: float


def calibration_study(
    votes: Sequence[ScoredVote],
    pinned: str | None,
    sizes: Sequence[int],
    seeds: Sequence[int],
    test: int,
    seed: int = 0,
) -> list[StudyRow]:
    """One row per number of fitting votes; the votes are decided ones, in the order that is shuffled.

    For each seed, Python's random.Random(seed) shuffles the votes; the first `test` are for fitting, of which a row
    takes the first so many, and the next `test` for testing (published). VoteError where there are too few.
    """
    fitting = test
    if len(votes) < fitting + test:
        raise VoteError(f"{len(votes)} decided votes are fewer than the {fitting + test} that two halves need")
    if max(sizes) > fitting:
        raise VoteError(f"{max(sizes)} votes are more than the {fitting} that are kept for fitting")
    wanted = sorted({0, *sizes})
    right = np.full((len(wanted), len(seeds), len(votes)), np.nan)
    for split, number in enumerate(seeds):
        order = list(range(len(votes)))
        random.Random(number).shuffle(order)
        held_out = order[fitting : fitting + test]
        for row, size in enumerate(wanted):
            calibration = fit_calibration([votes[i] for i in order[:size]], pinned)
            right[row, split, held_out] = [_right(calibration, votes[i]) for i in held_out]
    raw = [_row(right, row, np.random.default_rng(seed)) for row in range(len(wanted))]
    corrected = [1.0, *holm([p for _, _, p in raw[1:]])] if len(raw) > 1 else [1.0]
    return [
        StudyRow(size, accuracy, np.nanmean(right[row], axis=1).tolist(), gain, p, p_holm)
        for row, (size, (accuracy, gain, p), p_holm) in enumerate(zip(wanted, raw, corrected, strict=True))
    ]


def _right(calibration: Calibration, vote: ScoredVote) -> float:
    return float((calibration.margin(vote) > 0) == (vote.target == 1))


def _row(right: Array, row: int, rng: np.random.Generator) -> tuple[Interval, Interval, float]:
    """(accuracy, gain over no vote, p-value of the gain); every test of a vote weighs the same."""
    tested = ~np.isnan(right[0])
    used = tested.any(axis=0)
    times = tested.sum(axis=0)[used]
    correct = np.nansum(right[row], axis=0)[used]
    gained = correct - np.nansum(right[0], axis=0)[used]
    draws = rng.integers(0, len(times), size=(RESAMPLES, len(times)))
    weights = times[draws].sum(axis=1)
    accuracy = percentile_interval(correct.sum() / times.sum(), correct[draws].sum(axis=1) / weights)
    gain = percentile_interval(gained.sum() / times.sum(), gained[draws].sum(axis=1) / weights)
    flips = rng.choice([-1.0, 1.0], size=(RESAMPLES, len(times))) @ gained
    p = (1 + np.count_nonzero(np.abs(flips) >= abs(gained.sum()) - 1e-9)) / (1 + RESAMPLES)
    return accuracy, gain, float(p)

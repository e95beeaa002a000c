"""How much anchor calibration gains with K votes: repeated splits, intervals over votes, and a paired test.

The protocol is TuneJury's (arXiv 2606.17006, appendix D): the votes in a given order are shuffled by
random.Random(seed); the first `test` of them are for fitting, of which calibration sees the first K, and the next
`test` are predicted. A margin above zero predicts a.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plaudit.assets import read_json
from plaudit.errors import VoteError
from plaudit.evaluate.statistics import Interval, bootstrap_replicates, holm, percentile_interval
from plaudit.reward.calibration import PENALTY, UNCALIBRATED, Calibration, fit_calibration
from plaudit.reward.scored_votes import ScoredVote

RESAMPLES = 2000
PERMUTATIONS = 9999
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class CalibrationGain:
    """Accuracy on held-out votes with `votes` of the others to calibrate on, and how much that gains over none.

    accuracy, gain: mean over the seeds, 95 % bootstrap over votes with the fits as they are. p: two-sided paired
    permutation test, corrected (Holm) for the several K. Both are None for K = 0.
    """

    votes: int
    accuracy: Interval
    by_seed: tuple[float, ...]
    gain: Interval | None
    p: float | None

    @property
    def significant(self) -> bool:
        """Whether chance would hardly make this gain."""
        return self.p is not None and self.p < SIGNIFICANT


def read_order(path: Path) -> list[str]:
    """The ids under "new_uuids" of a JSON file, in its order; VoteError where there are none or one is there twice."""
    stored = read_json(path)
    ids = stored.get("new_uuids") if isinstance(stored, dict) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
        raise VoteError(f"{path} has no list of ids under 'new_uuids'")
    if len(set(ids)) < len(ids):
        raise VoteError(f"{path} names an id twice; every vote is in one place of the order")
    return ids


def in_order(votes: Sequence[ScoredVote], order: Sequence[str]) -> list[ScoredVote]:
    """The decided votes whose id `order` names, in its order."""
    by_id = {vote.id: vote for vote in votes if vote.winner != "tie"}
    return [by_id[id] for id in order if id in by_id]


def calibration_gains(
    votes: Sequence[ScoredVote],
    counts: Sequence[int],
    test: int,
    seeds: Sequence[int],
    pinned: str | None,
    penalty: float = PENALTY,
) -> list[CalibrationGain]:
    """What calibration on each of `counts` votes gains over none, on `test` held-out votes per seed.

    VoteError where there are fewer than 2 * test votes, or a count exceeds `test`.
    """
    if test < 1 or not seeds or len(votes) < 2 * test:
        raise VoteError(f"{len(votes)} ordered votes do not give {test} to fit and {test} to test; hold out fewer")
    if any(count < 0 or count > test for count in counts):
        raise VoteError(f"calibration votes must be between 0 and {test}, the votes set aside for fitting")
    positions = {vote.id: index for index, vote in enumerate(votes)}
    splits = [_shuffled(votes, seed) for seed in seeds]
    tested = np.zeros((len(seeds), len(votes)))
    for row, shuffled in enumerate(splits):
        tested[row, [positions[vote.id] for vote in shuffled[test : 2 * test]]] = 1.0
    right = {}
    for count in {0, *counts}:
        right[count] = np.zeros_like(tested)
        for row, shuffled in enumerate(splits):
            calibration = _fitted(shuffled[:count], pinned, penalty)
            for vote in shuffled[test : 2 * test]:
                right[count][row, positions[vote.id]] = float((calibration.margin(vote) > 0) == (vote.winner == "a"))
    gained = [count for count in counts if count > 0]
    p_values = dict(zip(gained, holm([_permutation_p(right[count] - right[0]) for count in gained]), strict=True))
    return [
        CalibrationGain(
            votes=count,
            accuracy=_interval(right[count], tested),
            by_seed=tuple((right[count].sum(axis=1) / test).tolist()),
            gain=_interval(right[count] - right[0], tested) if count else None,
            p=p_values.get(count),
        )
        for count in counts
    ]


def _shuffled(votes: Sequence[ScoredVote], seed: int) -> list[ScoredVote]:
    copy = list(votes)
    random.Random(seed).shuffle(copy)
    return copy


def _fitted(votes: Sequence[ScoredVote], pinned: str | None, penalty: float) -> Calibration:
    """A few votes need not show the pinned system: then no bias is held, and the penalty alone settles zero."""
    if not votes:
        return UNCALIBRATED
    shown = {system for vote in votes for system in (vote.system_a, vote.system_b)}
    return fit_calibration(votes, pinned if pinned in shown else None, penalty)


def _interval(values: NDArray[np.float64], tested: NDArray[np.float64]) -> Interval:
    """The mean over seeds of the mean over tested votes; the bootstrap draws votes, each with all seeds it is in."""

    def mean(rows: NDArray[np.int64]) -> float:
        return float(np.mean(values[:, rows].sum(axis=1) / tested[:, rows].sum(axis=1)))

    count = tested.shape[1]
    replicates = bootstrap_replicates(mean, count, seed=0, resamples=RESAMPLES)
    return percentile_interval(mean(np.arange(count)), replicates)


def _permutation_p(differences: NDArray[np.float64]) -> float:
    """How often the two predictions of each vote, exchanged at random, differ as much in all: two-sided.

    differences [seeds, votes]: a vote is exchanged in all seeds at once, because they share it.
    """
    per_vote = differences.sum(axis=0)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(PERMUTATIONS, per_vote.size))
    as_large = np.abs(signs @ per_vote) >= abs(per_vote.sum()) - 1e-9
    return float((1 + as_large.sum()) / (1 + PERMUTATIONS))

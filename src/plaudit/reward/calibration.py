"""Anchor calibration: one bias per system, learned from a few votes, that a frozen reward's scores are freed from.

A reward may like or dislike all that a system makes, above all a system that was not among its training votes. As in
TuneJury (arXiv 2606.17006), its scores r stay as they are and enter a Bradley-Terry model as an offset,
P(a beats b) = sigmoid((r_a - beta_a) - (r_b - beta_b)). The biases minimize the negative log-likelihood summed over
the votes plus penalty * sum(beta^2): the square is not halved, which is what the published figures were made with.
Ties are left out. One system that the reward knows well can be held at 0, so that scores keep their meaning; the
published figures come out to the last digit where none is held, and within a point where one is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from plaudit.assets import read_json, write_json
from plaudit.errors import ModelError, VoteError
from plaudit.reward.metrics import calibrate_temperature
from plaudit.reward.scored_votes import ScoredVote

Array = NDArray[np.float64]

PENALTY = 1.0
_KIND = "anchor-calibration"
_TOLERANCE = 1e-10
"""The largest component of the gradient at which a fit has arrived."""


@dataclass(frozen=True)
class SystemBias:
    """By how much a reward overrates a system, how sure that is, and how many decided votes it was learned from.

    standard_error: from the inverse Hessian of the penalized likelihood; 0 for the system that is held at 0.
    """

    value: float
    standard_error: float
    votes: int


@dataclass(frozen=True)
class Calibration:
    """Biases of systems, and the temperature at which margins of corrected scores are probabilities."""

    biases: Mapping[str, SystemBias]
    temperature: float
    pinned: str | None
    penalty: float

    def apply(self, score: float, system: str) -> float:
        """The score without its system's bias. A system that is not in `biases` has none: see `unknown`."""
        return score - self.biases[system].value if system in self.biases else score

    def unknown(self, systems: Iterable[str]) -> list[str]:
        """Which of `systems` nothing is known of, sorted: their scores stay as they are, which users should be told."""
        return sorted(set(systems) - self.biases.keys())

    def margin(self, vote: ScoredVote) -> float:
        """Corrected score of a minus corrected score of b; its sign predicts the winner."""
        return self.apply(vote.score_a, vote.system_a) - self.apply(vote.score_b, vote.system_b)

    def probability(self, vote: ScoredVote) -> float:
        """How likely a is to win where there is no tie."""
        return float(expit(self.margin(vote) / self.temperature))


UNCALIBRATED = Calibration({}, temperature=1.0, pinned=None, penalty=PENALTY)
"""What no votes say: scores as they are."""


def fit_calibration(votes: Sequence[ScoredVote], pinned: str | None, penalty: float = PENALTY) -> Calibration:
    """The calibration that the decided votes say most for; it does not depend on their order.

    pinned: the system held at 0; without one the penalty alone settles where zero is. VoteError where no vote is
    decided, or none shows the pinned system.
    """
    if penalty <= 0:
        raise VoteError(f"the penalty is {penalty:g}, it must be above 0: votes may favour a system without exception")
    # The sums below are over votes in one order, so that the same votes give the same bits however they were listed.
    decided = sorted((v for v in votes if v.winner != "tie"), key=lambda v: (v.id, *map(str, asdict(v).values())))
    if not decided:
        raise VoteError(f"none of {len(votes)} votes is decided; calibration needs votes that are not ties")
    counts = Counter(system for vote in decided for system in (vote.system_a, vote.system_b))
    if pinned is not None and pinned not in counts:
        raise VoteError(f"no decided vote shows {pinned!r}; pin one of {', '.join(sorted(counts))}")
    free = sorted(counts.keys() - {pinned})
    design, offset, target = _tables(decided, free)
    values = _minimize(design, offset, target, penalty)
    errors = np.sqrt(np.diag(np.linalg.inv(_hessian(values, design, offset, penalty)))) if free else np.zeros(0)
    biases = {
        system: SystemBias(float(value), float(error), counts[system])
        for system, value, error in zip(free, values, errors, strict=True)
    }
    if pinned is not None:
        biases[pinned] = SystemBias(0.0, 0.0, counts[pinned])
    margins = torch.from_numpy(offset - design @ values)
    temperature = calibrate_temperature(margins, torch.from_numpy(target))
    return Calibration(dict(sorted(biases.items())), temperature, pinned, penalty)


def gradient(calibration: Calibration, votes: Sequence[ScoredVote]) -> dict[str, float]:
    """The slope of what `fit_calibration` minimizes in the bias of each system that is free: zero at its solution."""
    free = sorted(calibration.biases.keys() - {calibration.pinned})
    design, offset, target = _tables([vote for vote in votes if vote.winner != "tie"], free)
    values = np.array([calibration.biases[system].value for system in free])
    return dict(zip(free, _slope(values, design, offset, target, calibration.penalty).tolist(), strict=True))


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON, whole or not at all."""
    write_json(path, {"kind": _KIND, **asdict(calibration)})


def load_calibration(path: Path) -> Calibration:
    """Read what `save_calibration` wrote; ModelError where the file is missing, damaged, or something else."""
    stored: Any = read_json(path)
    try:
        if stored["kind"] != _KIND:
            raise ModelError(f"{path} is of kind {stored['kind']!r}, wanted is {_KIND}; check the file name")
        biases = {
            str(system): SystemBias(_finite(bias["value"]), _finite(bias["standard_error"]), int(bias["votes"]))
            for system, bias in stored["biases"].items()
        }
        temperature, penalty = _finite(stored["temperature"]), _finite(stored["penalty"])
        if temperature <= 0:
            raise ValueError("a temperature must be above 0")
        return Calibration(biases, temperature, stored["pinned"], penalty)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{path} is not a calibration ({error!r}); make it with plaudit reward calibrate") from None


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def _tables(votes: Sequence[ScoredVote], free: Sequence[str]) -> tuple[Array, Array, Array]:
    """Per vote: which free systems it compares [N, S] (+1 for a, -1 for b), the score margin [N], whether a won [N]."""
    place = {system: index for index, system in enumerate(free)}
    design = np.zeros((len(votes), len(free)))
    for row, vote in enumerate(votes):
        for system, sign in ((vote.system_a, 1.0), (vote.system_b, -1.0)):
            if system in place:
                design[row, place[system]] += sign
    offset = np.array([vote.score_a - vote.score_b for vote in votes])
    return design, offset, np.array([float(vote.winner == "a") for vote in votes])


def _objective(values: Array, design: Array, offset: Array, target: Array, penalty: float) -> float:
    margins = offset - design @ values
    return float(np.logaddexp(0.0, -(2 * target - 1) * margins).sum() + penalty * values @ values)


def _slope(values: Array, design: Array, offset: Array, target: Array, penalty: float) -> Array:
    slope: Array = design.T @ (target - expit(offset - design @ values)) + 2 * penalty * values
    return slope


def _hessian(values: Array, design: Array, offset: Array, penalty: float) -> Array:
    likely = expit(offset - design @ values)
    curved: Array = design.T @ (design * (likely * (1 - likely))[:, None]) + 2 * penalty * np.eye(len(values))
    return curved


def _minimize(design: Array, offset: Array, target: Array, penalty: float) -> Array:
    """Newton's method with halved steps; the objective is strictly convex, so what it finds is the one minimum."""
    values = np.zeros(design.shape[1])
    for _ in range(100):
        slope = _slope(values, design, offset, target, penalty)
        if np.abs(slope).max(initial=0.0) < _TOLERANCE:
            break
        step = np.linalg.solve(_hessian(values, design, offset, penalty), slope)
        here = _objective(values, design, offset, target, penalty)
        scale = 1.0
        while scale > 1e-6 and _objective(values - scale * step, design, offset, target, penalty) > here:
            scale /= 2
        values = values - scale * step
    return values

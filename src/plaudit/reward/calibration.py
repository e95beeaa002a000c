"""Anchor calibration: one bias per system, fitted on a few votes, for rewards of systems that were not in training.

Frozen scores are the offset of a Bradley-Terry model (TuneJury, arXiv 2606.17006):
P(a beats b) = sigmoid((r_a - beta_a) - (r_b - beta_b)), with one system, the anchor, held at 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from plaudit.errors import ModelError, VoteError
from plaudit.reward.scored_votes import ScoredVote
from plaudit.reward.training import calibrate_temperature
from plaudit.storage import read_json, write_json

PENALTY = 1.0
"""Published: lambda in the loss, sum of -log P + lambda * sum of beta^2."""


@dataclass(frozen=True)
class Bias:
    """The bias of a system's scores, its standard error, and the system's number of votes.

    The error is from the inverse Hessian of the penalized loss (ours): with few votes the penalty, not the data, keeps
    it small.
    """

    value: float
    error: float
    votes: int


@dataclass(frozen=True)
class Calibration:
    """Biases by system. sigmoid(margin / temperature) is the probability of a margin."""

    anchor: str | None
    biases: dict[str, Bias] = field(default_factory=dict)
    temperature: float = 1.0
    penalty: float = PENALTY

    def apply(self, score: float, system: str) -> float:
        """The score minus the system's bias; unchanged for a system without votes."""
        return score - self.biases[system].value if system in self.biases else score

    def margin(self, vote: ScoredVote) -> float:
        """The margin of A over B after calibration."""
        return self.apply(vote.score_a, vote.system_a) - self.apply(vote.score_b, vote.system_b)

    def unknown(self, systems: Sequence[str]) -> list[str]:
        """The systems that have no bias here, each once."""
        return sorted({system for system in systems if system not in self.biases})


def fit_calibration(votes: Sequence[ScoredVote], anchor: str | None = None, penalty: float = PENALTY) -> Calibration:
    """The biases that explain the votes best; the loss is convex, so they are unique. Ties are left out.

    anchor: a system whose scores are trusted; its bias is 0. Without one, or where it has no votes, the penalty alone
    fixes the level. VoteError where no vote decides between two systems.
    """
    decided = [vote for vote in votes if vote.target != 0.5 and vote.system_a != vote.system_b]
    if votes and not decided:
        raise VoteError(f"none of {len(votes)} votes decides between two systems; calibration needs some that do")
    counts = Counter(system for vote in decided for system in (vote.system_a, vote.system_b))
    free = sorted(counts.keys() - {anchor})
    column = {system: index for index, system in enumerate(free)}
    design = np.zeros((len(decided), len(free)))
    for row, vote in enumerate(decided):
        for system, sign in ((vote.system_a, 1.0), (vote.system_b, -1.0)):
            if system in column:
                design[row, column[system]] = sign
    offset = np.array([vote.score_a - vote.score_b for vote in decided])
    side = np.array([1.0 if vote.target == 1 else -1.0 for vote in decided])

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = side * (offset - design @ beta)
        gradient = design.T @ (side * expit(-margin)) + 2 * penalty * beta
        return float(-log_expit(margin).sum() + penalty * beta @ beta), gradient

    def hessian(beta: np.ndarray) -> np.ndarray:
        chance = expit(offset - design @ beta)
        return design.T @ (design * (chance * (1 - chance))[:, None]) + 2 * penalty * np.eye(len(free))

    beta = np.zeros(len(free))
    if free:
        beta = minimize(loss, beta, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-10}).x
    errors = np.sqrt(np.diag(np.linalg.inv(hessian(beta)))) if free else beta
    biases = {s: Bias(float(b), float(e), counts[s]) for s, b, e in zip(free, beta, errors, strict=True)}
    if anchor is not None and anchor in counts:
        biases[anchor] = Bias(0.0, 0.0, counts[anchor])
    fitted = Calibration(anchor, biases, 1.0, penalty)
    return Calibration(anchor, biases, _temperature(fitted, decided), penalty)


def _temperature(calibration: Calibration, votes: Sequence[ScoredVote]) -> float:
    if not votes:
        return 1.0
    margins = torch.tensor([calibration.margin(vote) for vote in votes])
    return float(calibrate_temperature(margins, torch.tensor([vote.target for vote in votes])))


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    write_json(path, {"kind": "calibration", **asdict(calibration)})


def load_calibration(path: Path) -> Calibration:
    """Read a file of save_calibration; ModelError where it is something else."""
    values = read_json(path)
    try:
        if values.pop("kind") != "calibration":
            raise KeyError("kind")
        biases = {system: Bias(**bias) for system, bias in values.pop("biases").items()}
        calibration = Calibration(biases=biases, **values)
        numbers = [
            calibration.temperature,
            calibration.penalty,
            *(n for b in biases.values() for n in (b.value, b.error)),
        ]
        if not np.isfinite(np.array(numbers, dtype=float)).all():
            raise ValueError("a number is not finite")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path} is no calibration ({error}); write one with plaudit reward calibrate") from None
    return calibration

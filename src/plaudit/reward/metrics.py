"""How well margins predict votes: accuracy, calibration, their intervals, and the scale that calibrates them.

A margin is score(A) - score(B), a target 1 where A was preferred, 0 where B was, 0.5 for a tie. Ties have no right
answer: they are left out of everything here, as in TuneJury (arXiv 2606.17006).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from plaudit.errors import VoteError

CALIBRATION_BINS = 10

CHANCE_LOSS = math.log(2)
"""Cross-entropy per vote of a coin."""


def decided(margins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and targets [N] of the votes that are not ties; VoteError where all are."""
    keep = targets != 0.5
    if not keep.any():
        raise VoteError(f"all of the {len(targets)} votes are ties; accuracy needs at least one decided vote")
    return margins[keep], targets[keep]


def correct(margins: Tensor, targets: Tensor) -> Tensor:
    """For every decided vote [M]: 1 where the margin has the vote's sign, 0 where not, 0.5 where it is zero."""
    margins, targets = decided(margins, targets)
    return 0.5 + 0.5 * torch.sign(margins.double()) * (2 * targets.double() - 1)


def pairwise_accuracy(margins: Tensor, targets: Tensor) -> float:
    """Share of decided votes that the margin's sign predicts."""
    return correct(margins, targets).mean().item()


@dataclass(frozen=True)
class ReliabilityBin:
    """Votes of similar confidence: how many, the mean confidence, and the share predicted correctly."""

    votes: int
    confidence: float
    accuracy: float


def reliability_table(margins: Tensor, targets: Tensor, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Equal-count bins of |margin|, least confident first; confidence is sigmoid(|margin|), in [0.5, 1]."""
    right = correct(margins, targets)
    confidence = torch.sigmoid(decided(margins, targets)[0].double().abs())
    order = torch.argsort(confidence, stable=True)
    return [
        ReliabilityBin(len(rows), confidence[rows].mean().item(), right[rows].mean().item())
        for rows in torch.tensor_split(order, bins)
        if len(rows)
    ]


def expected_calibration_error(margins: Tensor, targets: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Mean over votes of their bin's |accuracy - confidence|, by the bins of `reliability_table`."""
    table = reliability_table(margins, targets, bins)
    return sum(b.votes * abs(b.accuracy - b.confidence) for b in table) / sum(b.votes for b in table)


def bootstrap_interval(
    statistic: Callable[[Tensor], float],
    size: int,
    generator: torch.Generator,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap: statistic(rows) over `samples` draws of `size` rows out of `size`, with replacement."""
    draws = [statistic(torch.randint(size, (size,), generator=generator)) for _ in range(samples)]
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.tensor(draws, dtype=torch.float64), torch.tensor([tail, 1 - tail]).double())
    return low.item(), high.item()


@dataclass(frozen=True)
class RewardMetrics:
    """A reward on held-out votes; intervals are 95 % bootstrap over votes."""

    votes: int
    decided: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    calibration_error: float
    calibration_error_interval: tuple[float, float]
    loss: float
    reliability: list[ReliabilityBin]

    @property
    def accuracy_low(self) -> float:
        """The lower end of the accuracy's interval: of the bootstrap's and of Wilson's the lower one.

        The bootstrap of a few votes that were all predicted has no width.
        """
        right = binomtest(math.floor(self.accuracy * self.decided + 1e-9), self.decided)
        return min(self.accuracy_interval[0], right.proportion_ci(0.95, "wilson").low)


def reward_metrics(margins: Tensor, targets: Tensor, seed: int = 0) -> RewardMetrics:
    """All figures of margins [N] against targets [N]; VoteError where every vote is a tie."""
    clear, sides = decided(margins, targets)
    right = correct(clear, sides)
    generator = torch.Generator().manual_seed(seed)
    return RewardMetrics(
        votes=len(targets),
        decided=len(sides),
        accuracy=right.mean().item(),
        accuracy_interval=bootstrap_interval(lambda rows: right[rows].mean().item(), len(right), generator),
        calibration_error=expected_calibration_error(clear, sides),
        calibration_error_interval=bootstrap_interval(
            lambda rows: expected_calibration_error(clear[rows], sides[rows]), len(sides), generator, samples=200
        ),
        loss=functional.binary_cross_entropy_with_logits(margins, targets.to(margins.dtype)).item(),
        reliability=reliability_table(clear, sides),
    )


def calibrate_temperature(margins: Tensor, targets: Tensor, largest: float = 20.0) -> float:
    """The temperature T for which sigmoid(margin / T) fits the decided votes best (ours; Guo et al. 2017).

    Cross-entropy is convex in 1/T, so its slope is bisected; T stays within [1 / largest, largest].
    """
    clear, sides = decided(margins.double(), targets.double())
    low, high = 1 / largest, largest
    for _ in range(60):
        inverse = math.sqrt(low * high)
        slope = ((torch.sigmoid(clear * inverse) - sides) * clear).mean().item()
        low, high = (low, inverse) if slope > 0 else (inverse, high)
    return 1 / math.sqrt(low * high)

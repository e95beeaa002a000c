import math

import numpy as np
import pytest
import torch

from plaudit.errors import VoteError
from plaudit.reward.training import calibrate_temperature, confidence, correct, reward_metrics
from plaudit.statistics import expected_calibration_error, reliability_bins


def calibration_error(margins: torch.Tensor, targets: torch.Tensor, bins: int = 10) -> float:
    return expected_calibration_error(confidence(margins, targets), correct(margins, targets), bins)


def test_accuracy_leaves_ties_out_and_counts_equal_scores_as_half() -> None:
    margins = torch.tensor([1.0, -1.0, 2.0, 0.0, 5.0])
    assert correct(margins, torch.tensor([1.0, 1.0, 0.0, 1.0, 0.5])).tolist() == [1, 0, 0, 0.5]
    with pytest.raises(VoteError, match="all of the 2 votes are ties"):
        correct(margins[:2], torch.tensor([0.5, 0.5]))


def test_calibration_error_of_two_bins_by_hand() -> None:
    # Confidences 0.6 (right half the time) and 0.9 (always right): (|0.5 - 0.6| + |1 - 0.9|) / 2.
    low, high = math.log(0.6 / 0.4), math.log(0.9 / 0.1)
    margins = torch.tensor([low, -low, high, -high])
    targets = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert calibration_error(margins, targets, bins=2) == pytest.approx(0.1, abs=1e-6)
    table = reliability_bins(confidence(margins, targets), correct(margins, targets), bins=2)
    assert [b.count for b in table] == [2, 2]
    assert [b.accuracy for b in table] == [0.5, 1.0]
    assert [b.confidence for b in table] == pytest.approx([0.6, 0.9])


def test_bins_hold_equal_counts() -> None:
    margins = torch.randn(105, generator=torch.Generator().manual_seed(0))
    counts = [b.count for b in reliability_bins(confidence(margins, torch.ones(105)), torch.ones(105))]
    assert sum(counts) == 105 and max(counts) - min(counts) <= 1 and len(counts) == 10


def simulated(votes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    margins = 2 * torch.randn(votes, generator=generator)
    return margins, torch.bernoulli(torch.sigmoid(margins), generator=generator)


def test_true_log_odds_are_calibrated_and_overconfident_ones_are_not() -> None:
    margins, targets = simulated(20_000)
    assert calibration_error(margins, targets) < 0.015
    assert calibration_error(3 * margins, targets) > 0.1


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_known_factor(factor: float) -> None:
    margins, targets = simulated(20_000)
    assert calibrate_temperature(factor * margins, targets) == pytest.approx(factor, rel=0.05)


def test_the_temperature_is_bounded_for_uninformative_and_perfect_margins() -> None:
    margins, targets = simulated(500)
    assert calibrate_temperature(margins, (margins > 0).float()) == pytest.approx(1 / 20, rel=0.01)
    assert calibrate_temperature(-margins, targets) == pytest.approx(20, rel=0.01)


def test_all_figures_together_agree_with_their_parts() -> None:
    margins, targets = simulated(1000)
    targets[:100] = 0.5
    figures = reward_metrics(margins, targets)
    assert (figures.votes, figures.decided) == (1000, 900)
    assert figures.accuracy == correct(margins, targets).mean()
    assert figures.accuracy_interval[0] < figures.accuracy < figures.accuracy_interval[1]
    assert figures.calibration_error == calibration_error(margins, targets)
    assert figures == reward_metrics(margins, targets)


def test_the_last_published_bin_takes_the_rest() -> None:
    margins = torch.linspace(0.01, 3, 105)
    sure, right = confidence(margins, torch.ones(105)), np.arange(105) % 3 > 0
    table = reliability_bins(sure, right, even=False)
    assert [b.count for b in table] == [10] * 9 + [15]
    parts = [(sure[lo:hi], right[lo:hi]) for lo, hi in [(10 * i, 10 * i + 10) for i in range(9)] + [(90, 105)]]
    by_hand = sum(len(s) / 105 * abs(s.mean() - r.mean()) for s, r in parts)
    assert expected_calibration_error(sure, right, even=False) == pytest.approx(by_hand)
    assert [b.count for b in reliability_bins(sure[:7], right[:7], even=False)] == [7]
    figures = reward_metrics(margins, torch.ones(105), even_bins=False)
    assert [b.count for b in figures.reliability] == [10] * 9 + [15]

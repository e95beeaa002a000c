"""The stages' decisions and losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.stages.crpo import choose_pairs, crpo_objective
from plaudit.stages.expert_iteration import keep_best, standard_scores


def test_crpo_is_ln_2_where_the_model_is_its_reference() -> None:
    winner, loser = torch.tensor([0.5, 0.7]), torch.tensor([0.6, 0.1])
    found = crpo_objective(winner, loser, winner, loser, beta=2000, lambda_fm=1.0)
    assert found["preference_loss"].item() == pytest.approx(math.log(2))
    assert found["loss"].item() == pytest.approx(math.log(2) + 0.6)
    assert found["implicit_accuracy"].item() == 0


def test_crpo_by_hand_and_its_gradient() -> None:
    winner, loser = torch.tensor([0.5], requires_grad=True), torch.tensor([0.6], requires_grad=True)
    # bracket = (0.5 - 0.6) - (0.52 - 0.59) = -0.03; with beta 20 the logit is 0.3
    found = crpo_objective(winner, loser, torch.tensor([0.52]), torch.tensor([0.59]), beta=20, lambda_fm=0.5)
    assert found["preference_loss"].item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))), abs=1e-6)
    found["loss"].backward()
    slope = 10 * (1 - 1 / (1 + math.exp(-0.3)))
    assert winner.grad is not None and loser.grad is not None
    assert winner.grad.item() == pytest.approx(slope + 0.5, abs=1e-4)
    assert loser.grad.item() == pytest.approx(-slope, abs=1e-4)


def test_pairs_are_best_against_worst_and_the_widest_come_first() -> None:
    captions = ["x", "x", "x", "y", "y", "alone"]
    scores = np.array([0.2, 0.5, 0.3, 0.9, 0.1, 0.7])
    pairs = choose_pairs(captions, scores, 5)
    assert [(p.caption, p.winner, p.loser) for p in pairs] == [("y", 3, 4), ("x", 1, 0)]
    assert pairs[0].margin == pytest.approx(0.8)
    assert choose_pairs(captions, scores, 1) == pairs[:1]


def test_the_kept_have_the_highest_sum_of_z_scores() -> None:
    rewards, clap = np.array([0.0, 10.0, 5.0, 5.0]), np.array([0.3, 0.1, 0.2, 0.4])
    assert keep_best(rewards, clap, 2).tolist() == [3, 1]


def test_a_quantity_that_does_not_vary_has_no_say() -> None:
    assert keep_best(np.array([1.0, 3.0, 2.0]), np.full(3, 0.4), 3).tolist() == [1, 2, 0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(0.1, 10), st.floats(-5, 5))
def test_ranking_does_not_depend_on_the_reward_scale(values: list[float], scale: float, shift: float) -> None:
    rewards = np.round(np.array(values), 3)
    clap = np.linspace(0, 1, len(rewards))
    assert np.allclose(standard_scores(rewards * scale + shift), standard_scores(rewards), atol=1e-5)
    assert len(keep_best(rewards, clap, len(rewards) // 2)) == len(rewards) // 2

"""The stages' decisions and losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.flow import flow_loss
from plaudit.stages.crpo import crpo_loss
from plaudit.stages.expert_iteration import keep_best, round_facts, standard_scores
from plaudit.stages.nft import NftSettings, nft_loss, optimality
from plaudit.stages.sft import PreferenceTrainSettings

NFT = NftSettings(train=PreferenceTrainSettings(steps=1, learning_rate=1e-3))


def test_crpo_is_ln_2_where_the_model_is_its_reference() -> None:
    winner, loser = torch.tensor([0.5, 0.7]), torch.tensor([0.6, 0.1])
    found = crpo_loss(winner, loser, winner, loser, beta=2000, lambda_fm=1.0)
    assert found["preference_loss"].item() == pytest.approx(math.log(2))
    assert found["loss"].item() == pytest.approx(math.log(2) + 0.6)
    assert found["implicit_accuracy"].item() == 0


def test_crpo_by_hand_and_its_gradient() -> None:
    winner, loser = torch.tensor([0.5], requires_grad=True), torch.tensor([0.6], requires_grad=True)
    # bracket = (0.5 - 0.6) - (0.52 - 0.59) = -0.03; with beta 20 the logit is 0.3
    found = crpo_loss(winner, loser, torch.tensor([0.52]), torch.tensor([0.59]), beta=20, lambda_fm=0.5)
    assert found["preference_loss"].item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))), abs=1e-6)
    found["loss"].backward()
    slope = 10 * (1 - 1 / (1 + math.exp(-0.3)))
    assert winner.grad is not None and loser.grad is not None
    assert winner.grad.item() == pytest.approx(slope + 0.5, abs=1e-4)
    assert loser.grad.item() == pytest.approx(-slope, abs=1e-4)


@pytest.mark.parametrize("beta", [20.0, 2000.0])
def test_at_first_crpo_lowers_the_winners_loss_and_raises_the_losers_by_a_quarter_of_beta(beta: float) -> None:
    winner = torch.tensor([0.5, 0.7, 1.1], requires_grad=True)
    loser = torch.tensor([0.6, 0.1, 0.9], requires_grad=True)
    found = crpo_loss(winner, loser, winner.detach(), loser.detach(), beta, lambda_fm=1.0)
    found["preference_loss"].backward()
    # sigmoid(0) = 1/2, so each pair's slope is beta/2 x 1/2, and the loss is a mean over three.
    assert torch.allclose(winner.grad, torch.full((3,), beta / 4 / 3))
    assert torch.allclose(loser.grad, torch.full((3,), -beta / 4 / 3))


def test_nft_by_hand() -> None:
    # one value a clip: v_old 1, v_new 2, v 4; beta 0.2 -> v+ = 1.2, v- = 0.8, losses 7.84 and 10.24
    new, old, target = (torch.full((1, 1, 1), value) for value in (2.0, 1.0, 4.0))
    found = nft_loss(new, old, target, torch.tensor([0.5]), torch.tensor([0.75]), NFT)
    assert found["positive_loss"].item() == pytest.approx(7.84, rel=1e-6)
    assert found["negative_loss"].item() == pytest.approx(10.24, rel=1e-6)
    assert found["loss"].item() == pytest.approx(0.75 * 7.84 + 0.25 * 10.24, rel=1e-6)
    assert found["drift"].item() == 1.0


def test_nft_at_first_is_the_flow_loss_and_pulls_by_how_good_a_clip_is() -> None:
    torch.manual_seed(0)
    old, target = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    new, good = old.clone().requires_grad_(True), torch.tensor([1.0, 0.5, 0.0])
    found = nft_loss(new, old, target, torch.rand(3), good, NFT)
    assert found["loss"].item() == pytest.approx(flow_loss(old, target).mean().item(), rel=1e-6)
    found["loss"].backward()
    # d loss / d v_new = 2 beta (2 r - 1) (v_old - v) / (numbers in a clip x clips)
    wanted = 2 * 0.2 * (2 * good - 1)[:, None, None] * (old - target) / (8 * 3)
    assert torch.allclose(new.grad, wanted, atol=1e-7)


@given(st.floats(0, 1), st.floats(0.05, 2))
def test_nft_is_least_where_the_old_velocity_is_moved_by_2r_minus_1_over_beta(good: float, beta: float) -> None:
    old, target, r = torch.tensor([[[0.3]]]), torch.tensor([[[1.1]]]), torch.tensor([good])
    best = old + (2 * good - 1) / beta * (target - old)
    settings, t = NFT.model_copy(update={"beta": beta}), torch.tensor([0.5])
    least = nft_loss(best, old, target, t, r, settings)["loss"]
    for step in (-0.1, 0.1):
        assert nft_loss(best + step, old, target, t, r, settings)["loss"] > least


def test_diffusion_nfts_scale_weights_and_kl_by_hand() -> None:
    # As above v+ = 1.2 and v- = 0.8 where v = 4. At t = 0.5 the data are off by 1.4 and 1.6, and so is their square
    # over their absolute value. KL: |2 - 1|^2 = 1.
    new, old, target = (torch.full((1, 1, 1), value) for value in (2.0, 1.0, 4.0))
    t, good = torch.tensor([0.5]), torch.tensor([0.75])

    def loss(**changes: object) -> float:
        return float(nft_loss(new, old, target, t, good, NFT.model_copy(update=changes))["loss"])

    plain, adaptive = 0.75 * 7.84 + 0.25 * 10.24, 0.75 * 1.4 + 0.25 * 1.6
    assert loss(adaptive_weights=True) == pytest.approx(adaptive, rel=1e-6)
    assert loss(divide_by_beta=True) == pytest.approx(plain / 0.2, rel=1e-6)
    assert loss(divide_by_beta=True, max_advantage=5.0) == pytest.approx(plain * 5 / 0.2, rel=1e-6)
    assert loss(kl=0.3) == pytest.approx(plain + 0.3, rel=1e-6)
    everything = {"divide_by_beta": True, "adaptive_weights": True, "kl": 0.3}
    assert loss(**everything) == pytest.approx(adaptive / 0.2 + 0.3, rel=1e-6)


def test_adaptive_weights_get_no_gradient_and_are_bounded() -> None:
    """Over a clip with errors e the loss is sum e^2 / (n m) with m = mean |e| held fixed: its slope is 2 e / (n m)."""
    target = torch.zeros(1, 1, 4)
    new = torch.tensor([[[1.0, -2.0, 3.0, 0.0]]], requires_grad=True)
    settings = NFT.model_copy(update={"beta": 1.0, "adaptive_weights": True})  # v+ is the new velocity
    nft_loss(new, target, target, torch.ones(1), torch.ones(1), settings)["loss"].backward()
    assert new.grad is not None and torch.allclose(new.grad, 2 * new.detach() / (4 * 1.5))
    exact = nft_loss(target, target, target, torch.ones(1), torch.ones(1), settings)
    assert exact["loss"] == 0


def test_how_good_a_candidate_is_compares_it_with_its_captions_others() -> None:
    values, captions = np.array([0.30, 0.20, 0.22, 5.0, 0.9]), ["x", "x", "x", "y", "x"]
    train = NFT.train
    soft = optimality(values, captions, NftSettings(train=train))
    # the mean of x is 0.405: advantages -1.05, -2.05, -1.85 and 4.95, clipped at 1; y stands alone
    assert np.allclose(soft, [0.0, 0.0, 0.0, 0.5, 1.0])
    softer = optimality(values, captions, NftSettings(train=train, temperature=1.0))
    assert np.allclose(softer, [0.5 - 0.0525, 0.5 - 0.1025, 0.5 - 0.0925, 0.5, 0.5 + 0.2475])
    hard = optimality(values, captions, NftSettings(train=train, advantage="binary", max_advantage=3.0))
    assert np.allclose(hard, [0, 0, 0, 0.5, 1])


def test_the_kept_have_the_highest_sum_of_z_scores() -> None:
    rewards, clap = np.array([0.0, 10.0, 5.0, 5.0]), np.array([0.3, 0.1, 0.2, 0.4])
    assert keep_best(rewards, clap, 2).tolist() == [3, 1]


def test_of_each_prompt_only_the_best_is_kept() -> None:
    rewards = np.array([9.0, 8.0, 7.0, 1.0, 3.0, 2.0, 5.0, 5.0, 4.0])  # three prompts, three candidates each
    assert keep_best(rewards, np.zeros(9), 2, "reward", per_prompt=3).tolist() == [0, 6]
    assert keep_best(rewards, np.zeros(9), 3, "reward", per_prompt=3).tolist() == [0, 6, 4]
    assert keep_best(rewards, np.zeros(9), 2, "reward").tolist() == [0, 1]


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_what_is_kept_is_of_different_prompts(values: list[float], per_prompt: int, data: st.DataObject) -> None:
    rewards = np.round(np.repeat(values, per_prompt), 2)
    keep = data.draw(st.integers(1, len(values)))
    kept = keep_best(rewards, np.zeros(len(rewards)), keep, "reward", per_prompt)
    assert len(set(kept // per_prompt)) == keep
    left = np.setdiff1d(np.arange(len(values)), kept // per_prompt)
    assert not len(left) or rewards[kept].min() >= rewards[left * per_prompt].max()


def test_a_quantity_that_does_not_vary_has_no_say() -> None:
    assert keep_best(np.array([1.0, 3.0, 2.0]), np.full(3, 0.4), 3).tolist() == [1, 2, 0]


def test_a_round_says_how_its_candidates_compare_with_the_corpus() -> None:
    facts = round_facts(np.array([0.0, 2.0, 10.0, 20.0]), [3, 2], np.arange(11.0))
    assert facts == {
        "candidates": 4, "kept": 2, "reward_mean": 8.0, "reward_kept": 15.0, "corpus_mean": 5.0,
        "corpus_top_decile": 9.0, "above_top_decile": 0.5,
    }  # fmt: skip


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(0.1, 10), st.floats(-5, 5))
def test_ranking_does_not_depend_on_the_reward_scale(values: list[float], scale: float, shift: float) -> None:
    rewards = np.round(np.array(values), 3)
    clap = np.linspace(0, 1, len(rewards))
    assert np.allclose(standard_scores(rewards * scale + shift), standard_scores(rewards), atol=1e-5)
    assert len(keep_best(rewards, clap, len(rewards) // 2)) == len(rewards) // 2

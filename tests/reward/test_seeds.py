from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plaudit.errors import VoteError
from plaudit.reward.training import PUBLISHED_REWARD, SeedStatistics, fit_reward, fit_seeds, seed_statistics
from tests.reward.taste import CLAP, FAST, store, votes, wave


def test_the_published_preset_is_what_was_published() -> None:
    p = PUBLISHED_REWARD
    assert p.blocks == ("clap_audio", "audio", "clap_text") and p.hidden == (1024, 512, 256, 128) and p.dropout == 0.5
    assert (p.learning_rate, p.weight_decay, p.batch_size, p.patience) == (1e-4, 1e-3, 32, 30)
    assert not p.standardize and not p.calibrate and p.output_scale == 1.0
    assert (p.max_epochs, p.min_improvement, p.clap_through) == (1000, 1e-4, 16000)
    assert not (p.joint_sides or p.even_batches or p.centre or p.even_bins)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert seed_statistics([1.0, 2.0, 3.0]) == SeedStatistics(2.0, 1.0) and seed_statistics([0.7]) == SeedStatistics(
        0.7, 0.0
    )


def test_the_best_seed_has_the_least_validation_loss_and_is_what_it_is_alone(tmp_path: Path) -> None:
    encoded = store(tmp_path)
    parts = votes(400, 0), votes(100, 1), votes(200, 2)
    order: list[int] = []
    output = fit_seeds(*parts, encoded, FAST, [3, 0, 1], lambda seed, _: order.append(seed))
    losses = {seed: fitted.validation_loss for seed, fitted in output.fitted.items()}
    assert output.best_seed == min(losses, key=losses.__getitem__) and len(set(losses.values())) == 3
    assert list(dict.fromkeys(order)) == [3, 0, 1]
    alone = fit_reward(*parts, encoded, replace(FAST, seed=output.best_seed))
    assert alone.metrics == output.best.metrics and alone.validation_loss == output.best.validation_loss
    assert output.accuracy == seed_statistics([fitted.metrics.accuracy for fitted in output.fitted.values()])
    with pytest.raises(VoteError, match="one or more different"):
        fit_seeds(*parts, encoded, FAST, [1, 1])


def test_a_subset_of_the_blocks_trains_a_reward_that_scores_waveforms(tmp_path: Path) -> None:
    settings = replace(FAST, blocks=("audio",))
    fitted = fit_reward(votes(800, 0), votes(200, 1), votes(300, 2), store(tmp_path), settings)
    assert fitted.metrics.accuracy > 0.75 and fitted.reward.features.blocks == ("audio",)
    low, high = fitted.reward.score([wave("0")[0], wave("25")[0]], 8000, ["", ""])
    assert low < high


def test_training_does_not_depend_on_the_order_within_votes(tmp_path: Path) -> None:
    encoded = store(tmp_path)
    mixed, sided = (
        fit_reward(votes(800, 0, winner=winner), votes(200, 1), votes(400, 2), encoded, FAST) for winner in (None, "a")
    )
    assert sided.metrics.accuracy > 0.75 and abs(sided.metrics.accuracy - mixed.metrics.accuracy) < 0.06


@pytest.mark.parametrize(("tied", "name"), [(0, "training"), (1, "validation"), (2, "test")])
def test_votes_that_are_all_ties_are_refused(tmp_path: Path, tied: int, name: str) -> None:
    parts = [votes(40, n, winner="tie" if n == tied else None) for n in range(3)]
    with pytest.raises(VoteError, match=f"all of the 40 {name} votes are ties"):
        fit_reward(*parts, store(tmp_path), FAST)


def test_text_alone_cannot_distinguish_clips_of_one_prompt(tmp_path: Path) -> None:
    fitted = fit_reward(
        votes(100, 0), votes(50, 1), votes(50, 2), store(tmp_path), replace(FAST, blocks=("clap_text",), max_epochs=2)
    )
    assert fitted.metrics.accuracy == 0.5


def test_prompts_of_ten_thousand_characters_and_none_are_prompts(tmp_path: Path) -> None:
    parts = [
        [replace(vote, prompt="piano " * 1700 if index % 2 else "") for index, vote in enumerate(votes(60, n))]
        for n in range(3)
    ]
    fitted = fit_reward(*parts, store(tmp_path), replace(FAST, max_epochs=1))
    scores = fitted.reward.score([wave("3")[0]] * 2, 8000, ["piano " * 1700, ""])
    assert torch.isfinite(scores).all() and CLAP.text(["piano " * 1700]).shape == (1, 6)

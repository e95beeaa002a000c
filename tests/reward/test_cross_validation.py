from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from plaudit.errors import VoteError
from plaudit.reward.cross_validation import cross_validated_reward
from plaudit.reward.features import FeatureStore
from plaudit.reward.training import comparisons, margins, train_head, train_head_without_validation
from plaudit.reward.votes import fold_votes
from plaudit.storage import seed_of
from plaudit.types import Vote
from tests.reward.taste import CLIPS, FAST, store

PROMPTS = 8


def votes(count: int, seed: int, memorized: bool = False) -> list[Vote]:
    """Votes on PROMPTS prompts with five clips each; the clip of higher number tends to win.

    memorized: whichever of two clips wins, all listeners agree, and nothing about other clips says which.
    """
    generator = np.random.default_rng(seed)
    output = []
    for n in range(count):
        prompt = int(generator.integers(PROMPTS))
        a, b = (int(clip) for clip in generator.choice(np.arange(prompt, CLIPS, PROMPTS), 2, replace=False))
        if memorized:
            a_wins = seed_of(str(a)) > seed_of(str(b))
        else:
            a_wins = generator.random() < 1 / (1 + 2.0 ** ((b - a) / 3))
        output.append(Vote(str(n), f"prompt {prompt}", str(a), str(b), "a" if a_wins else "b", "s", "t", "test", "l"))
    return output


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """All clips, encoded."""
    return store(tmp_path_factory.mktemp("features"))


vote = some.tuples(some.integers(0, 6), some.integers(0, 3), some.integers(0, 3), some.sampled_from(["a", "b", "tie"]))


@given(rows=some.lists(vote, min_size=1, max_size=60), folds=some.integers(3, 12), seed=some.integers(0, 9))
def test_prompts_are_in_one_fold_and_each_fold_has_a_decided_vote(
    rows: list[tuple[int, int, int, str]], folds: int, seed: int
) -> None:
    given_votes = [
        Vote(str(n), f"p{prompt}", f"{prompt}/{a}", f"{prompt}/{b + 4}", winner, "s", "t", "x", "l")  # type: ignore[arg-type]
        for n, (prompt, a, b, winner) in enumerate(rows)
    ]
    try:
        parts = fold_votes(given_votes, folds, seed)
    except VoteError:
        assert len({v.prompt for v in given_votes if v.winner != "tie"}) < 3
        return
    assert 3 <= parts.count <= folds and set(parts.of_votes) == set(range(parts.count))
    for fold in range(parts.count):
        inside = [v for v, place in zip(given_votes, parts.of_votes, strict=True) if place == fold]
        outside = [v for v, place in zip(given_votes, parts.of_votes, strict=True) if place != fold]
        assert any(v.winner != "tie" for v in inside)
        if not parts.note:
            assert not {v.prompt for v in inside} & {v.prompt for v in outside}
    again = fold_votes(given_votes[::-1], folds, seed)
    assert (again.of_votes[::-1] == parts.of_votes).all(), "whatever the order of the votes"


def test_folds_are_as_many_as_prompts_allow_and_almost_equal() -> None:
    parts = fold_votes(votes(400, 0), 20)
    assert parts.count == PROMPTS and not parts.note
    four = np.bincount(fold_votes(votes(400, 0), 4).of_votes)
    assert four.min() > 85 and four.max() < 115
    with pytest.raises(VoteError, match="2 folds are too few"):
        fold_votes(votes(40, 0), 2)
    with pytest.raises(VoteError, match="at least 3 prompts or pairs of clips"):
        fold_votes([replace(one, winner="tie") for one in votes(40, 0)], 5)


def test_the_accuracy_is_that_of_the_taste(encoded: FeatureStore) -> None:
    given_votes = votes(600, 1)
    done: list[tuple[int, int]] = []
    settings = replace(FAST, blocks=("clap_audio", "audio"), max_epochs=40)
    result = cross_validated_reward(given_votes, encoded, settings, 4, progress=lambda *at: done.append(at))
    figures = result.cross_validation
    assert (figures.folds, figures.votes, figures.groups, figures.baseline) == (4, 600, PROMPTS, None)
    assert figures.accuracy.low > 0.55 and figures.accuracy.mean == pytest.approx(result.metrics.accuracy)
    assert not result.chance_signs
    assert done == sorted(done) and done[-1] == (200, 200)
    again = cross_validated_reward(given_votes, encoded, settings, 4)
    assert asdict(again.cross_validation) == asdict(figures)


def test_votes_on_a_prompt_do_not_help_to_predict_others_on_it(encoded: FeatureStore) -> None:
    """Which clip wins can only be memorized: whoever saw the prompt's votes would be right."""
    learning = replace(FAST, max_epochs=80, hidden=(64,), dropout=0.0)
    given_votes = votes(400, 2, memorized=True)
    result = cross_validated_reward(given_votes, encoded, learning, 4)
    assert result.cross_validation.accuracy.low < 0.5 < 0.8 and result.cross_validation.accuracy.mean < 0.7
    data = comparisons(given_votes, encoded, result.reward.features)
    trained = train_head(data, data, learning)[0]
    assert ((margins(trained, data) > 0) == (data.target > 0.5)).float().mean() > 0.9, "it can be memorized"


def test_the_difference_from_a_baseline_is_paired(encoded: FeatureStore) -> None:
    given_votes = votes(300, 3)
    coin = cross_validated_reward(given_votes, encoded, FAST, 4, baseline=[0.0] * len(given_votes)).cross_validation
    assert coin.baseline is not None and coin.difference is not None
    assert (coin.baseline.mean, coin.baseline.low, coin.baseline.high) == (0.5, 0.5, 0.5)
    for end in ("mean", "low", "high"):
        assert getattr(coin.difference, end) == pytest.approx(getattr(coin.accuracy, end) - 0.5)
    right = [1.0 if one.winner == "a" else -1.0 for one in given_votes]
    oracle = cross_validated_reward(given_votes, encoded, FAST, 4, baseline=right).cross_validation
    assert oracle.baseline is not None and oracle.baseline.mean == 1
    assert oracle.difference is not None and oracle.difference.high < 0


def test_the_reward_is_trained_on_all_votes(encoded: FeatureStore) -> None:
    given_votes = votes(300, 4)
    result = cross_validated_reward(given_votes, encoded, FAST, 3)
    assert result.reward.facts["votes"] == {"train": 300}
    data = comparisons(given_votes, encoded, result.reward.features)
    alone = train_head_without_validation(data, result.epochs, 1.0, FAST)
    ratio = margins(result.reward.head, data) / margins(alone, data)
    assert torch.allclose(ratio, ratio[0], rtol=1e-3), "but for the temperature it is the same"


def test_training_without_validation_is_training_to_a_known_epoch(encoded: FeatureStore) -> None:
    result = cross_validated_reward(votes(300, 4), encoded, FAST, 3)
    train, validation = (comparisons(votes(300, seed), encoded, result.reward.features) for seed in (5, 6))
    head, history = train_head(train, validation, FAST)
    again = train_head_without_validation(train, history.best_epoch, history.temperature, FAST)
    assert all(
        torch.equal(one, other)
        for one, other in zip(head.state_dict().values(), again.state_dict().values(), strict=True)
    )
    further, history = train_head(train, validation, FAST, start=head)
    again = train_head_without_validation(train, history.best_epoch, history.temperature, FAST, start=head)
    assert torch.equal(margins(further, validation), margins(again, validation))
    assert math.isfinite(history.temperature) and history.temperature > 0

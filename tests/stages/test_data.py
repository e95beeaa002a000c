"""The order of training: permutations, weights, parts of batches, and the clips that come with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from plaudit.corpus.shards import ShardSet
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.training.data import Source, TrainingSet, generator_for, permutation, validation_losses
from tests.backbone.tiny import tiny_model, wake
from tests.stages.noise import tiny_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return tiny_shards(tmp_path_factory.mktemp("shards"))


def source(shards: ShardSet, rows: np.ndarray, weight: float = 1.0) -> Source:
    return Source(shards, rows, shards.rewards[rows], weight)


def test_epochs_are_permutations_that_differ() -> None:
    first, second = permutation((7, 0), 50), permutation((7, 1), 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert generator_for(1, 2).initial_seed() != generator_for(1, 3).initial_seed()


def test_an_epoch_holds_each_row_as_often_as_its_source_weighs(shards: ShardSet) -> None:
    rows = shards.rows("train")
    data = TrainingSet([source(shards, rows[:20]), source(shards, rows[20:26], 5), source(shards, rows[26:46], 0.3)], 1)
    assert len(data) == 20 + 30 + 6
    epochs = [Counter(map(tuple, data.members(epoch, len(data)).tolist())) for epoch in range(3)]
    for epoch in epochs:
        assert [sum(n for (s, _), n in epoch.items() if s == number) for number in range(3)] == [20, 30, 6]
        assert {n for (s, _), n in epoch.items() if s == 0} == {1}
        assert [n for (s, _), n in epoch.items() if s == 1] == [5] * 6
    chosen = [{p for (s, p) in epoch if s == 2} for epoch in epochs]
    assert all(len(rows) == 6 for rows in chosen) and len(set(map(frozenset, chosen))) == 3


def test_a_weight_between_whole_numbers_adds_some_rows_once_more(shards: ShardSet) -> None:
    data = TrainingSet([source(shards, shards.rows("train")[:10], 2.5)], 0)
    counts = Counter(data.members(0, len(data))[:, 1].tolist())
    assert sorted(counts.values()) == [2] * 5 + [3] * 5


def test_batches_cross_the_ends_of_epochs_and_come_again_the_same(shards: ShardSet) -> None:
    data = TrainingSet([source(shards, shards.rows("train"))], 5)
    stream = [p for index in range(7) for p in data.members(index, 23)[:, 1].tolist()]
    for epoch in range(2):
        assert sorted(stream[epoch * len(data) : (epoch + 1) * len(data)]) == list(range(len(data)))
    again = TrainingSet([source(shards, shards.rows("train"))], 5).members(4, 23)
    assert np.array_equal(again, data.members(4, 23))


def test_a_batch_holds_what_was_stored_uncast(shards: ShardSet) -> None:
    rows = shards.rows("train")[::-1].copy()
    data = TrainingSet([source(shards, rows)], 2)
    batch, members = data.batch(3, 8), data.members(3, 8)
    expected = shards.posterior(rows[members[:, 1]])
    assert batch.posterior.mean.dtype == batch.text.tokens.dtype == torch.float16
    assert torch.equal(batch.posterior.mean.float(), expected.mean)
    assert torch.equal(batch.posterior.std.float(), expected.std)
    assert torch.equal(batch.text.tokens.float(), shards.text(rows[members[:, 1]]).tokens)
    assert np.allclose(batch.scores, shards.rewards[rows[members[:, 1]]])


def test_parts_of_a_batch_are_cut_from_the_whole(shards: ShardSet) -> None:
    rows = shards.rows("train")
    data = TrainingSet([source(shards, rows[:30]), source(shards, rows[30:], 2)], 2)
    settings = FlowTrainSettings(steps=1, learning_rate=1, batch=12, score_dropout=0.5, text_dropout=0.5)
    objective = SftObjective(tiny_model("global_adaln"), data, settings)
    whole = objective.draw(5, slice(0, 12))
    parts = [objective.draw(5, slice(start, start + 4)) for start in (0, 4, 8)]
    assert whole["scores"].isnan().any() and not whole["scores"].isnan().all()
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]).nan_to_num(9), value.nan_to_num(9)), name


def test_validation_depends_on_weights_alone_and_names_bins(shards: ShardSet) -> None:
    rows, model = shards.rows("train"), wake(tiny_model("global_adaln"))
    held_out = source(shards, rows)
    first, again = (validation_losses(model, held_out, 40, batch=8) for _ in range(2))
    assert first == again
    assert list(first) == ["loss", *(f"loss_0.{b}" for b in range(10))]
    assert first["loss"] == pytest.approx(np.mean([v for k, v in first.items() if k != "loss"]))
    assert validation_losses(wake(tiny_model("global_adaln", seed=9)), held_out, 40, batch=8) != first
    few = validation_losses(model, held_out, 3, batch=8)
    assert list(few) == ["loss", "loss_0.0", "loss_0.1", "loss_0.2"]


def test_validation_of_a_velocity_that_is_zero_is_that_of_noise_and_data(shards: ShardSet) -> None:
    """Standardized data and noise are independent: the mean square of their difference is near two in every bin."""
    model = tiny_model("global_adaln")  # as initialized, it predicts zero
    model.latent_mean.copy_(shards.latent_mean)
    model.latent_std.copy_(shards.latent_std)
    found = validation_losses(model, source(shards, shards.rows("train")), 50, batch=50)
    assert all(1.4 < value < 2.6 for value in found.values())

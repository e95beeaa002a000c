import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from plaudit.errors import VoteError
from plaudit.reward.training import (
    PUBLISHED_REWARD,
    Comparisons,
    RewardSettings,
    _batches,
    confidence,
    correct,
    margins,
    preference_loss,
    train_head,
)
from plaudit.reward.tunejury import TuneJuryHead
from plaudit.statistics import expected_calibration_error

FAST = RewardSettings(
    hidden=(64, 32), dropout=0.1, learning_rate=2e-3, batch_size=128, patience=4, max_epochs=25, standardize=True
)


def taste(features: Tensor) -> Tensor:
    """A preference with a known truth: a quality, a bend, and a product of two inputs."""
    return 1.5 * features[:, 0] + features[:, 1].abs() + features[:, 2] * features[:, 3]


def simulated(votes: int, seed: int) -> tuple[Comparisons, float]:
    """Votes of a Bradley-Terry listener over 8 inputs, and the accuracy that the truth itself reaches on them."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, votes, 8, generator=generator)
    truth = taste(a) - taste(b)
    target = torch.bernoulli(torch.sigmoid(truth), generator=generator)
    return Comparisons(a, b, target), float(correct(truth, target).mean())


def test_the_loss_of_known_scores() -> None:
    zero = torch.zeros(1)
    assert preference_loss(zero, zero, torch.ones(1)).item() == pytest.approx(math.log(2))
    assert preference_loss(zero + 3, zero, torch.ones(1)).item() == pytest.approx(math.log1p(math.exp(-3)))
    tie = [preference_loss(zero + margin, zero, zero + 0.5).item() for margin in (-1.0, 0.0, 1.0)]
    assert tie[1] < tie[0] == pytest.approx(tie[2])


def test_training_reaches_the_noise_ceiling_and_is_calibrated() -> None:
    (train, _), (validation, _), (test, ceiling) = simulated(6000, 0), simulated(1000, 1), simulated(3000, 2)
    head, history = train_head(train, validation, replace(FAST, calibrate=True))
    predicted = margins(head, test)
    assert correct(predicted, test.target).mean() > ceiling - 0.03
    assert expected_calibration_error(confidence(predicted, test.target), correct(predicted, test.target)) < 0.06
    assert len(history.epochs) <= history.best_epoch + FAST.patience
    assert history.epochs[history.best_epoch - 1].validation_loss == min(e.validation_loss for e in history.epochs)


def test_votes_without_any_pattern_stop_early_and_keep_the_best_epoch() -> None:
    train, validation = simulated(300, 0)[0], simulated(300, 1)[0]
    noise = torch.Generator().manual_seed(5)
    train = replace(train, target=torch.randint(2, (300,), generator=noise).float())
    head, history = train_head(train, validation, replace(FAST, max_epochs=200, batch_size=32))
    assert len(history.epochs) == history.best_epoch + FAST.patience < 200
    kept = preference_loss(margins(head, validation), torch.zeros(300), validation.target)
    assert kept.item() == pytest.approx(history.epochs[history.best_epoch - 1].validation_loss, abs=1e-5)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    train, validation = simulated(400, 0)[0], simulated(100, 1)[0]
    settings = replace(FAST, max_epochs=3)
    before = torch.random.get_rng_state()
    first, _ = train_head(train, validation, settings)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(77)
    second, _ = train_head(train, validation, settings)
    other, _ = train_head(train, validation, replace(settings, seed=1))
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_ties_pull_scores_together() -> None:
    train, validation = simulated(1000, 0)[0], simulated(300, 1)[0]
    decided, _ = train_head(train, validation, replace(FAST, max_epochs=6))
    all_ties = [replace(votes, target=torch.full_like(votes.target, 0.5)) for votes in (train, validation)]
    tied, _ = train_head(all_ties[0], all_ties[1], replace(FAST, max_epochs=6))
    assert margins(tied, validation).std() < 0.5 * margins(decided, validation).std()


@pytest.mark.parametrize("calibrate", [False, True])
def test_training_clips_have_a_mean_score_of_zero(calibrate: bool) -> None:
    train, validation = simulated(500, 0)[0], simulated(200, 1)[0]
    head, _ = train_head(train, validation, replace(FAST, max_epochs=3, calibrate=calibrate))
    with torch.no_grad():
        assert head(torch.cat([train.a, train.b])).mean().item() == pytest.approx(0, abs=1e-4)


def test_standardized_training_is_invariant_to_input_scale() -> None:
    train, validation = simulated(400, 0)[0], simulated(100, 1)[0]
    scale = 2.0 ** torch.arange(-4, 4)  # powers of two keep every digit, so that results are equal, not only close
    moved = [Comparisons(c.a * scale, c.b * scale, c.target) for c in (train, validation)]
    settings = replace(FAST, max_epochs=3)
    plain, _ = train_head(train, validation, settings)
    same, _ = train_head(moved[0], moved[1], settings)
    torch.testing.assert_close(margins(plain, validation), margins(same, moved[1]), rtol=0, atol=0)


def test_an_input_that_never_varies_does_no_harm() -> None:
    train, validation = simulated(200, 0)[0], simulated(100, 1)[0]
    for side in (train.a, train.b):
        side[:, 5] = 3.0
    head, _ = train_head(train, validation, replace(FAST, max_epochs=1))
    assert torch.isfinite(margins(head, validation)).all()


def test_no_votes_and_features_that_are_not_numbers_are_refused() -> None:
    train, validation = simulated(64, 0)[0], simulated(32, 1)[0]
    empty = Comparisons(torch.zeros(0, 8), torch.zeros(0, 8), torch.zeros(0))
    with pytest.raises(VoteError, match="0 validation votes are too few"):
        train_head(train, empty, FAST)
    train.a[3, 2] = float("nan")
    with pytest.raises(VoteError, match="diverged"):
        train_head(train, validation, FAST)


def as_published(settings: RewardSettings, train: Comparisons, validation: Comparisons) -> tuple[TuneJuryHead, int]:
    """TuneJury's loop, written out: a forward for each side, batches of the loader, a least improvement of 1e-4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = torch.Generator().manual_seed(settings.seed)
        head = TuneJuryHead(train.a.shape[1], settings.hidden, settings.dropout, generator)
        optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        least, patience, epochs, kept = math.inf, settings.patience, 0, head.state_dict()
        while patience > 0 and epochs < settings.max_epochs:
            head.train()
            for rows in torch.randperm(len(train), generator=generator).split(settings.batch_size):
                optimizer.zero_grad()
                logits = head(train.a[rows]) - head(train.b[rows])
                torch.nn.functional.binary_cross_entropy_with_logits(logits, train.target[rows]).backward()
                optimizer.step()
            head.eval()
            with torch.no_grad():
                gaps = head(validation.a) - head(validation.b)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(gaps, validation.target).item()
            epochs, patience = epochs + 1, patience - 1
            if loss < least - 1e-4:
                least, patience, kept = loss, settings.patience, {k: v.clone() for k, v in head.state_dict().items()}
    head.load_state_dict(kept)
    return head, epochs


def test_the_published_preset_trains_as_the_published_loop_does() -> None:
    train, validation = simulated(150, 0)[0], simulated(60, 1)[0]
    settings = replace(PUBLISHED_REWARD, hidden=(24, 12), learning_rate=3e-3, patience=3)
    expected, epochs = as_published(settings, train, validation)
    head, history = train_head(train, validation, settings)
    assert len(history.epochs) == epochs < 1000
    torch.testing.assert_close(head.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)
    assert head.offset == 0 and head.scale == 1
    # Batch normalization has seen every batch twice, once for each side: 5 batches, the last with 22 of 150 votes.
    assert head.layers[1].num_batches_tracked == 10 * history.best_epoch  # type: ignore[operator]
    ours, _ = train_head(train, validation, replace(settings, joint_sides=True, max_epochs=1))
    assert ours.layers[1].num_batches_tracked == 5  # type: ignore[operator]


@pytest.mark.parametrize("size", [2, 31, 32, 33, 70, 64, 65])
def test_batches_of_the_loader_and_even_ones(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    published = [len(rows) for rows in _batches(size, PUBLISHED_REWARD, generator)]
    even = [len(rows) for rows in _batches(size, replace(PUBLISHED_REWARD, even_batches=True), generator)]
    expected = {2: [2], 31: [31], 32: [32], 33: [33], 70: [32, 32, 6], 64: [32, 32], 65: [32, 33]}[size]
    assert published == expected and sum(even) == size and max(even) - min(even) <= 1 and max(even) <= 32
    assert sorted(torch.cat(_batches(size, PUBLISHED_REWARD, generator)).tolist()) == list(range(size))


def test_an_improvement_counts_from_the_least_on() -> None:
    train, validation = simulated(300, 0)[0], simulated(100, 1)[0]
    _, history = train_head(train, validation, replace(FAST, min_improvement=0.02, max_epochs=60))
    best, place = math.inf, 0
    for epoch in history.epochs:
        if epoch.validation_loss < best - 0.02:
            best, place = epoch.validation_loss, epoch.epoch
    assert history.best_epoch == place and len(history.epochs) == min(60, place + FAST.patience)
    assert min(e.validation_loss for e in history.epochs) < best  # a smaller improvement was not kept

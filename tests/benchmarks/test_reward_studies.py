"""The studies of the synthetic reward at small sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.reward_learning_curve import learning_curve
from benchmarks.reward_overoptimization import among_corpus, best_of
from benchmarks.reward_presets import TUNEJURY_REWARD, compare
from benchmarks.synthetic_world import World, measure_corpus, synthetic_features
from plaudit import loading
from plaudit.reward.training import PUBLISHED_REWARD, SYNTHETIC_REWARD
from plaudit.synthetic.corpus import SyntheticCorpus

SILENT = lambda line: None  # noqa: E731


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return measure_corpus(SyntheticCorpus(24, 3.0, 5), synthetic_features(), tmp_path_factory.mktemp("world"), SILENT)


def test_the_curve_has_its_points_under_the_same_ceiling(world: World) -> None:
    settings = replace(SYNTHETIC_REWARD, hidden=(8,), max_epochs=2)
    curve = learning_curve(world, 16, [20, 40], [0, 1], 60, settings, SILENT)
    assert [point.votes for point in curve.points] == [20, 40] and curve.held_out == 60
    assert 0.5 < curve.ceiling < 1 and all(len(point.accuracies) == 2 for point in curve.points)
    assert learning_curve(world, 16, [20], [0, 1], 60, settings, SILENT).points[0] == curve.points[0]


def test_presets_are_compared_with_the_same_votes_by_seed(world: World) -> None:
    small = {"hidden": (8,), "max_epochs": 2}
    trainings = {"published": replace(PUBLISHED_REWARD, **small), "ours": replace(TUNEJURY_REWARD, **small)}
    ceiling, (published, ours) = compare(world, 16, 60, 60, [0, 1, 2], trainings, SILENT)
    assert 0.5 < ceiling < 1 and published.accuracy_gain is None
    gaps = np.array(ours.calibration_errors) - np.array(published.calibration_errors)
    assert ours.calibration_error_change is not None
    assert ours.calibration_error_change.difference.mean == pytest.approx(gaps.mean())
    _, (same, again) = compare(world, 16, 60, 60, [0, 1], {"a": trainings["ours"], "b": trainings["ours"]}, SILENT)
    assert same.accuracies == again.accuracies and again.accuracy_gain is None


def test_a_killed_study_continues(world: World) -> None:
    folder = world.store.folder.parent
    parts = sorted((folder / "measured").iterdir())
    again = measure_corpus(world.corpus, synthetic_features(), folder, SILENT)
    assert torch.equal(again.measured.flaws, world.measured.flaws) and len(parts) == 1


def test_a_true_reward_gains_what_is_possible_and_a_random_one_nothing() -> None:
    random = np.random.default_rng(0)
    truth = random.standard_normal((400, 16))
    perfect = best_of(truth, truth, [1, 4, 16])
    assert [one.utility.mean for one in perfect] == [one.possible.mean for one in perfect]
    assert perfect[0].reward.mean == pytest.approx(0, abs=1e-9)
    assert perfect[1].utility.mean == pytest.approx(1.03, abs=0.05)  # the mean of the best of four normals
    blind = best_of(random.standard_normal((400, 16)), truth, [16])[0]
    assert blind.reward.mean > 1.5 and blind.utility.low < 0 < blind.utility.high


def test_corpus_clips_are_scored_for_the_prompt(world: World) -> None:
    clips = world.corpus.clips[:6]
    reward, truth = among_corpus(world, loading.load_reward("synthetic"), clips, 4)
    assert reward.shape == truth.shape == (6, 4) and np.isfinite(reward).all() and np.isfinite(truth).all()

"""How often scores and texts are dropped in each stage's batches, and what a dropped one becomes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from plaudit.corpus.shards import ShardSet
from plaudit.stages.crpo import CrpoObjective, CrpoSettings
from plaudit.stages.nft import NftObjective, NftSettings
from plaudit.stages.sft import FlowTrainSettings, PreferenceTrainSettings, SftObjective
from plaudit.training.data import Source, TrainingSet
from plaudit.training.loop import Objective
from plaudit.types import TextFeatures
from tests.backbone.tiny import tiny_model, wake
from tests.stages.noise import tiny_shards

EVERYTHING = slice(None)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Source:
    shards: ShardSet = tiny_shards(tmp_path_factory.mktemp("shards"))
    rows = shards.rows("train")
    return Source(shards, rows, shards.rewards[rows])


def objective(stage: str, clips: Source, score: float, text: float, injection: str = "input_add") -> Objective:
    model = wake(tiny_model(injection))
    frozen = copy.deepcopy(model)
    dropout = {"score_dropout": score, "text_dropout": text}
    plain = {"steps": 1, "learning_rate": 1.0, "batch": 50} | dropout
    if stage == "sft":
        settings = FlowTrainSettings.model_validate(plain)
        return SftObjective(model, TrainingSet([clips], 0), settings)
    train = PreferenceTrainSettings.model_validate(plain)
    if stage == "crpo":
        return CrpoObjective(model, frozen, clips, clips, CrpoSettings(train=train))
    return NftObjective(model, frozen, clips, np.full(len(clips.rows), 0.5), NftSettings(train=train))


@pytest.mark.parametrize("stage", ["sft", "crpo", "nft"])
@pytest.mark.parametrize("score, text", [(0.1, 0.1), (0.4, 0.0), (0.0, 0.25)])
def test_scores_and_texts_are_dropped_at_their_rates_and_independently(
    stage: str, clips: Source, score: float, text: float
) -> None:
    made = objective(stage, clips, score, text)
    drawn = [made.draw(index, EVERYTHING) for index in range(80)]
    no_score = torch.cat([inputs["scores"].isnan() for inputs in drawn])
    no_text = torch.cat([inputs["text_dropped"] for inputs in drawn])
    n = len(no_score)
    assert n == 4000

    def spread(rate: float) -> float:
        return 4 * (rate * (1 - rate) / n) ** 0.5  # four standard errors

    both = (no_score & no_text).float().mean().item()
    for found, rate in ((no_score, score), (no_text, text)):
        assert abs(found.float().mean().item() - rate) <= spread(rate)
    assert abs(both - score * text) <= spread(score * text)


@pytest.mark.parametrize("stage", ["crpo", "nft"])
def test_preference_tuning_drops_nothing_by_default_and_the_papers_recipe_a_tenth(stage: str, clips: Source) -> None:
    plain = PreferenceTrainSettings(steps=1, learning_rate=1.0)
    assert plain.score_dropout == plain.text_dropout == 0
    drawn = objective(stage, clips, 0.0, 0.0).draw(0, EVERYTHING)
    assert not drawn["text_dropped"].any() and not drawn["scores"].isnan().any()


@pytest.mark.parametrize("stage", ["crpo", "nft"])
def test_what_is_dropped_changes_no_other_draw(stage: str, clips: Source) -> None:
    without, half = (objective(stage, clips, rate, rate).draw(3, EVERYTHING) for rate in (0.0, 0.5))
    for name in without.keys() - {"scores", "text_dropped"}:
        assert torch.equal(without[name], half[name]), name


@pytest.mark.parametrize("stage", ["sft", "crpo", "nft"])
def test_a_dropped_text_is_the_empty_string_and_a_dropped_score_is_none(stage: str, clips: Source) -> None:
    """With everything dropped the loss is that of the empty text, without any score."""
    made = objective(stage, clips, 1.0, 1.0)
    model = made.model
    text = TextFeatures(torch.randn(1, 7, 12), torch.randn(1, 10))
    model.set_statistics(torch.zeros(5), torch.ones(5), 0.0, 1.0, text)
    calls = []

    def network(latents: torch.Tensor, words: TextFeatures, t: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        calls.append((words, score))
        return model(latents, words, t, score)

    made.loss(network, made.draw(0, EVERYTHING))
    assert calls
    for words, score in calls:
        assert torch.equal(words.tokens, text.tokens.expand(50, -1, -1))
        assert torch.equal(words.pooled, text.pooled.expand(50, -1))
        assert score.isnan().all()


@pytest.mark.parametrize("stage", ["sft", "crpo", "nft"])
def test_a_model_without_a_score_is_trained_without_one(stage: str, clips: Source, tmp_path: Path) -> None:
    made = objective(stage, clips, 0.1, 0.1, injection="none")
    values = made.loss(made.model, made.draw(0, EVERYTHING))
    assert values["loss"].isfinite()

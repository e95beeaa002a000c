"""NFT's batches, what it trains on, and that it moves towards good clips and away from bad ones."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from plaudit.corpus.shards import ShardSet
from plaudit.errors import CorpusError
from plaudit.flow import flow_loss, interpolate, velocity
from plaudit.stages.nft import NftObjective, NftSettings, scored_source
from plaudit.stages.pairs import CANDIDATES, PAIRS, Candidate, Pair, write_lines
from plaudit.stages.sft import PreferenceTrainSettings
from plaudit.training.data import draw_latents
from plaudit.training.loop import train
from plaudit.types import TextFeatures
from tests.backbone.tiny import tiny_model, wake
from tests.stages.noise import tiny_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pairs folder of noise; its last candidate could not be used as audio."""
    folder = tmp_path_factory.mktemp("pairs")
    shards = tiny_shards(folder / "shards", clips=20)
    made = zip(shards.ids, shards.captions, strict=True)
    candidates = [Candidate(id, caption, float(n % 2), 0.0, 1.0) for n, (id, caption) in enumerate(made)]
    write_lines(folder / CANDIDATES, [*candidates, Candidate("gone", "caption 9", 5.0, 0.0, 1.0)])
    return folder


def settings(**changes: object) -> NftSettings:
    plain = {"steps": 30, "learning_rate": 3e-4, "batch": 8, "seed": 4}
    return NftSettings(train=PreferenceTrainSettings.model_validate(plain | changes))


def objective(folder: Path, chosen: NftSettings) -> NftObjective:
    model = wake(tiny_model("global_adaln", seed=3))
    source, good = scored_source(folder, chosen)
    return NftObjective(model, copy.deepcopy(model).requires_grad_(False), source, good, chosen)


def test_every_candidate_that_can_be_used_is_judged_and_keeps_the_score_it_was_asked_for(folder: Path) -> None:
    source, good = scored_source(folder, settings())
    assert len(good) == 20 and (source.scores == 1.0).all()
    assert good[:4].tolist() == [0.0, 1.0, 0.0, 1.0]  # two of a caption, half a reward from their mean
    assert good[18] == good[19] == 0.0  # the lost one was far better


def test_a_part_of_a_batch_is_that_part_of_the_whole_with_each_clips_own_judgement(folder: Path) -> None:
    made = objective(folder, settings())
    whole, part = made.draw(5, slice(None)), made.draw(5, slice(2, 6))
    assert all(torch.equal(value, whole[name][2:6]) for name, value in part.items())
    shards = ShardSet(folder / "shards", verify=False)
    row_of = {tuple(shards.posterior(np.array([row])).mean.flatten()[:3].tolist()): row for row in range(len(shards))}
    for row in range(8):
        clip = row_of[tuple(whole["mean"][row].float().flatten()[:3].tolist())]
        assert whole["good"][row] == made.good[clip]


def flow_of(made: NftObjective, good: float) -> float:
    """The flow loss of the clips that are so good, with one noise and one time each."""
    rows = made.clips.rows[made.good == good]
    posterior, text = made.clips.shards.posterior(rows), made.clips.shards.text(rows)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(posterior.mean.shape, generator=generator)
    latents = draw_latents(made.model, posterior.mean, posterior.std, torch.zeros_like(noise))
    t, scores = torch.rand(len(rows), generator=generator), torch.ones(len(rows))
    with torch.no_grad():
        features = TextFeatures(text.tokens, text.pooled)
        predicted = made.model(interpolate(latents, noise, t), features, t, scores)
    return flow_loss(predicted, velocity(latents, noise)).mean().item()


def test_good_clips_become_likelier_than_bad_ones(folder: Path, tmp_path: Path) -> None:
    made = objective(folder, settings())
    before = {good: flow_of(made, good) for good in (0.0, 1.0)}
    train(made.model, made, made.settings.train, tmp_path, Accelerator(cpu=True), lambda done, total: None)
    after = {good: flow_of(made, good) for good in (0.0, 1.0)}
    # The loss of good ones may rise too: the target velocity goes (2 r - 1) / beta = 5 times the way to the clip.
    assert after[0.0] - after[1.0] > before[0.0] - before[1.0] + 1


def test_others_pairs_say_which_is_better_and_no_more(tmp_path: Path) -> None:
    ids = tiny_shards(tmp_path / "shards", clips=10).ids
    write_lines(tmp_path / PAIRS, [Pair("caption 0", ids[0], ids[1]), Pair("caption 1", ids[3], ids[2], None, 0.5)])
    with pytest.raises(CorpusError, match="advantage=binary"):
        scored_source(tmp_path, settings())
    source, good = scored_source(tmp_path, settings().model_copy(update={"advantage": "binary"}))
    assert source.rows.tolist() == [0, 1, 3, 2] and good.tolist() == [1, 0, 1, 0]
    assert np.isnan(source.scores[:2]).all() and (source.scores[2:] == 0.5).all()

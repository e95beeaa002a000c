"""Training of the base model at small size, and the evaluation of prompt following."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plaudit.encoders.words import LENGTH
from plaudit.generate.model import read_model_config
from plaudit.storage import read_json
from plaudit.synthetic.corpus import SyntheticCorpus, describe_clip
from plaudit.synthetic.probes import Measurement
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS
from plaudit.types import TextFeatures
from tools import evaluate_synthetic, train_base


def settings(**changes: object) -> train_base.Settings:
    values = {"minutes": 0.01, "batch": 2, "learning_rate": 1e-3, "workers": 1, "capacity": 8, "start_after": 4}
    return train_base.Settings(**{**values, "compile": False, "clips_per_chunk": 4, "captions": 2, **changes})


def test_captions_of_a_clip_begin_with_the_corpus_and_differ() -> None:
    clip = describe_clip(train_base.CORPUS_SEED, 3)
    captions = train_base.captions_of(clip, 6)
    assert captions[0] == clip.caption and len(captions) == 6 and len(set(captions)) >= 4


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    chosen = settings(warmup=10, decay_from=0.5, learning_rate=1.0)
    assert train_base.learning_rate(0, 0.0, chosen) == pytest.approx(0.1)
    assert train_base.learning_rate(50, 0.4, chosen) == 1.0
    assert train_base.learning_rate(50, 0.75, chosen) == pytest.approx(0.5)
    assert train_base.learning_rate(50, 1.0, chosen) == 0.0


def test_a_pool_keeps_the_newest_clips_and_pairs_each_with_its_captions() -> None:
    pool = train_base.Pool(4, 2, torch.device("cpu"))
    for first in (0, 3):
        clips = torch.arange(first, first + 3).float()
        mean = clips[:, None, None].expand(3, train_base.FRAMES, 40)
        captions = clips.repeat_interleave(2)
        text = TextFeatures(captions[:, None, None].expand(6, LENGTH, 128), captions[:, None].expand(6, 128))
        pool.add(mean, torch.zeros_like(mean), text)
    assert len(pool) == 4 and pool.rendered == 6
    mean, std, text = pool.draw(64, torch.Generator().manual_seed(0))
    assert set(mean[:, 0, 0].tolist()) == {2.0, 3.0, 4.0, 5.0} and not std.any()
    assert torch.equal(text.pooled[:, 0], mean[:, 0, 0]) and torch.equal(text.tokens[:, 0, 0], mean[:, 0, 0])


@pytest.mark.slow
def test_training_writes_models_and_continues_where_it_stopped(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for minutes in (0.05, 0.1):
        train_base.train(settings(minutes=minutes), torch.device("cpu"), tmp_path, tmp_path)
        report = read_json(tmp_path / "training.json")
        assert report["minutes"] >= minutes and all(np.isfinite(v) for v in report["validation_loss"].values())
    for name in ("raw", "ema-0.05", "ema-0.10", "early"):
        assert read_model_config(tmp_path / name).backbone == train_base.BACKBONE


def test_rates_of_measurements_that_are_right_wrong_or_silent_on_a_fact() -> None:
    clips = SyntheticCorpus(12, 10.0, 5, flawed_fraction=0.0, miscaptioned_fraction=0.0).clips
    truths = [clip.caption_truth for clip in clips]
    genre = torch.eye(len(GENRES))[[GENRES.index(t.genre) for t in truths]]
    mood = torch.eye(len(MOODS))[[(MOODS.index(t.mood) + 1) % len(MOODS) for t in truths]]
    instruments = torch.tensor([[float(name in t.instruments) for name in INSTRUMENTS] for t in truths])
    candidates = torch.tensor(evaluate_synthetic.TEMPI)
    tempo = torch.eye(len(candidates))[[int((candidates / t.tempo - 1).abs().argmin()) for t in truths]]
    keys = torch.eye(24)[[len(MODES) * KEYS.index(t.key) + MODES.index(t.mode) for t in truths]].unflatten(1, (12, 2))
    found = evaluate_synthetic.rates(Measurement(genre, mood, instruments, tempo, keys, torch.zeros(12, 6)), clips)
    assert (found["genre"], found["mood"], found["instruments"]) == (1.0, 0.0, 1.0)
    assert (found["tempo"], found["tempo_where_stated"], found["key"]) == (1.0, 1.0, 1.0)
    assert found["tempi_stated"] == sum("bpm" in clip.caption for clip in clips) > 0
    assert found["noise"] == 0.0 and found["utility"] == pytest.approx(1.65, abs=1e-3)  # all but the mood's 0.45

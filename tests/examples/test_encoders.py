"""The examples of encoders: each loads by its file and does what its interface promises, and clips are evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from plaudit import loading
from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.errors import ModelError
from plaudit.pipeline.steps import run_recipe
from plaudit.recipe import load_recipe
from plaudit.reporting import Silent
from plaudit.reward.features import RewardFeatures
from plaudit.storage import read_json
from tests.examples.small import EXAMPLES

FILE = EXAMPLES / "encoders.py"


def noise(tilt: float, seed: int, samples: int = 16_000) -> np.ndarray:
    """Noise whose spectrum rises by `tilt` decibels an octave."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (tilt / 6)
    wave = np.fft.irfft(spectrum)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def test_a_prompt_has_the_same_features_in_any_batch() -> None:
    encoder = loading.TEXT_ENCODERS.load(f"{FILE}:HashedWords")
    both, alone = encoder.encode(["slow piano", "fast drums"]), encoder.encode(["fast drums"])
    assert both.tokens.shape == (2, encoder.length, encoder.token_dim)
    assert both.pooled.shape == (2, encoder.pooled_dim)
    assert torch.equal(both.tokens[1:], alone.tokens) and not torch.equal(both.pooled[0], both.pooled[1])


def test_a_clap_ranks_clips_by_their_prompt_and_is_an_audio_encoder_too() -> None:
    clap = loading.CLAPS.load(f"{FILE}:WordAxes")
    waves = torch.from_numpy(np.stack([noise(-9, 0), noise(0, 1)]))
    cosines = clap.audio(waves) @ clap.text(["a dark piece", "a bright piece"]).T
    assert cosines.argmax(1).tolist() == [0, 1]
    assert torch.allclose(clap.audio(waves).norm(dim=1), torch.ones(2))
    assert loading.AUDIO_ENCODERS.load(f"{FILE}:WordAxes").dim == clap.dim
    with pytest.raises(ModelError, match=r"BandLevels' has no text; a CLAP needs"):
        loading.CLAPS.load(f"{FILE}:BandLevels")


def test_features_of_rewards_are_of_both() -> None:
    clap, audio = loading.CLAPS.load(f"{FILE}:WordAxes"), loading.AUDIO_ENCODERS.load(f"{FILE}:BandLevels")
    features = RewardFeatures(clap, audio)
    assert features.clip_dim == clap.dim + audio.dim


def test_clips_are_evaluated_with_them(tmp_path: Path) -> None:
    for name, tilt in (("dark", -9), ("bright", 0)):
        for seed in range(3):
            write_wav(tmp_path / "clips" / f"{name}{seed}.wav", noise(tilt, seed), 16_000)
    rows = [f"{name}{seed},a {name} piece" for name in ("dark", "bright") for seed in range(3)]
    (tmp_path / "prompts.csv").write_text("\n".join(["id,prompt", *rows]))
    words = ["evaluate", str(tmp_path / "clips"), "--prompts", str(tmp_path / "prompts.csv"), "--reference",
             str(tmp_path / "clips"), "--clap", f"{FILE}:WordAxes", "--embedding", f"{FILE}:BandLevels",
             "--metric", "clap", "--metric", "frechet", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    values = {row["metric"]: row["value"] for row in json.loads(done.stdout)["metrics"]}
    assert values["clap"] > 0.9 and values["frechet"] == pytest.approx(0, abs=1e-6)


def test_a_reward_trained_with_them_in_a_run_is_loaded_with_them(tmp_path: Path) -> None:
    names = [f"models.clap={FILE}:WordAxes", f"models.audio_embedder={FILE}:BandLevels"]
    few = ["corpus.size=120", "votes.pairs=60", "votes.validation_pairs=30", "reward.max_epochs=2"]
    run_recipe(load_recipe("smoke", [*names, *few]), tmp_path / "run", Silent(), "labels")
    reward = loading.load_tunejury(str(tmp_path / "run" / "reward"))
    assert (reward.features.clap.name, reward.features.audio_encoder.name) == ("word-axes", "band-levels")
    assert np.isfinite(read_json(tmp_path / "run" / "labels" / "rewards.json")["rewards"]).all()

"""The encoders agree with their plain form, bfloat16 with float32, and the benchmark prints its figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.reference_scoring import plain_reward
from benchmarks.scoring import by_package, file_by_file, main, milliseconds_by_stage, written_clips
from plaudit import loading
from plaudit.audio import read_audio
from plaudit.reward.base import Recording
from plaudit.reward.scoring import Clip
from plaudit.reward.tunejury import TuneJury
from plaudit.statistics import spearman


@pytest.fixture(scope="module")
def reward() -> TuneJury:
    return loading.load_tunejury("synthetic", "cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return written_clips(tmp_path_factory.mktemp("clips"), 24)


def test_features_are_those_of_the_plain_encoders(reward: TuneJury, clips: list[Clip]) -> None:
    recordings = []
    for clip in clips[:8]:
        wave, rate = read_audio(clip.file)
        recordings.append(Recording(torch.from_numpy(wave), rate, str(clip.file)))
    with torch.inference_mode():
        features = reward.features.recording_features(recordings)
        plain = plain_reward(reward).features.recording_features(recordings)
    assert float((features - plain).abs().max()) < 1e-3
    assert float((features - plain).abs().mean()) < 1e-6


def test_long_clips_have_the_features_of_the_plain_encoders(reward: TuneJury, clips: list[Clip]) -> None:
    long = torch.cat([torch.from_numpy(read_audio(clip.file)[0]) for clip in clips[:5] if clip is not clips[3]])[None]
    with torch.inference_mode():
        embeddings = [one.features.audio_encoder.audio(long) for one in (reward, plain_reward(reward))]
    assert float((embeddings[0] - embeddings[1]).abs().max()) < 1e-2


def test_scores_in_bfloat16_are_within_a_hundredth_of_a_deviation(reward: TuneJury, clips: list[Clip]) -> None:
    exact, reduced = (np.array(by_package(clips, reward, precision)) for precision in ("no", "bf16"))
    difference = np.abs(exact - reduced) / exact.std()
    assert 0 < difference.max() < 1e-2
    assert spearman(exact, reduced) > 0.99
    assert exact == pytest.approx(file_by_file(clips, plain_reward(reward)), abs=1e-3)


def test_every_stage_is_timed(reward: TuneJury, clips: list[Clip]) -> None:
    stages = milliseconds_by_stage(clips, reward)
    assert all(taken > 0 for taken in stages.values()) and len(stages) == 6


def test_the_figures_are_one_json_object() -> None:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--json", "-n", "4", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["clips"] == 4 and figures["times_file_by_file"] > 0
    seconds = figures["milliseconds_a_clip"]
    expected = seconds["file by file, plain encoders"] / seconds["package, float32"]
    assert figures["times_file_by_file"] == pytest.approx(expected)

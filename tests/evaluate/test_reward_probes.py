"""Probes of rewards whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.audio import write_wav
from plaudit.errors import AudioError
from plaudit.evaluate.rewards import PERTURBATIONS, ProbeResult, clipped, noisy, probe_files, resample_and_back
from plaudit.reward.base import check_wave

RATE = 16000


class FunctionReward:
    """A reward that is one function of the waveform."""

    def __init__(self, function: Callable[[Tensor], float], careful: bool = True) -> None:
        self.function, self.careful = function, careful

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        if self.careful:
            for wave in waves:
                check_wave(wave, "clip")
        return torch.tensor([self.function(wave) for wave in waves])


def crest(wave: Tensor) -> float:
    """How far peaks stand out, in decibels: neither loudness nor rate, but noise and clipping change it."""
    return 20 * torch.log10(wave.abs().quantile(0.995) / wave.square().mean().sqrt()).item()


def clips(folder: Path, count: int = 6) -> list[Path]:
    time = np.arange(2 * RATE) / RATE
    for n in range(count):
        beats = np.exp(-(8 + 2 * n) * (time % 0.25)) * np.sin(2 * np.pi * (200 + 50 * n) * time)
        write_wav(folder / f"{n}.wav", 0.9 * beats, RATE, "FLOAT")
    return sorted(folder.glob("*.wav"))


def probed(paths: list[Path], reward: FunctionReward) -> ProbeResult:
    return probe_files(paths, "", reward, lambda done, of: None)


def test_a_loudness_reward_fails(tmp_path: Path) -> None:
    found = probed(clips(tmp_path), FunctionReward(lambda wave: 20 * torch.log10(wave.square().mean().sqrt()).item()))
    rows = {row.name: row for row in found.rows}
    louder = rows["louder by 6 dB"]
    assert louder.change is not None and louder.passed is False
    assert louder.change.mean * found.deviation == pytest.approx(6.0, abs=0.01)
    assert rows["reversed"].change is not None and rows["reversed"].change.mean == pytest.approx(0, abs=1e-4)
    assert rows["reversed"].passed is None and rows["noise at 10 dB"].passed is False


def test_a_reward_that_responds_only_to_damage_passes(tmp_path: Path) -> None:
    found = probed(clips(tmp_path), FunctionReward(crest))
    passed = {row.name: row.passed for row in found.rows}
    assert passed["louder by 6 dB"] and passed["quieter by 6 dB"] and passed["resampled up and back"]
    assert passed["clipped"] and found.silence_refused and found.clips == 6


def test_a_reward_that_scores_silence_is_reported(tmp_path: Path) -> None:
    function = FunctionReward(lambda wave: wave.abs().mean().item(), careful=False)
    assert not probed(clips(tmp_path, 2), function).silence_refused


def test_a_change_that_leaves_too_little_audio_counts_fewer_clips(tmp_path: Path) -> None:
    def function(wave: Tensor) -> float:
        if len(wave) < 1.5 * RATE:
            raise AudioError("too short")
        return crest(wave)

    rows = {row.name: row for row in probed(clips(tmp_path), FunctionReward(function)).rows}
    assert rows["half the length"].clips == 0 and rows["half the length"].change is None
    assert rows["reversed"].clips == 6


def test_bad_files_are_left_out_and_clips_that_do_not_differ_refused(tmp_path: Path) -> None:
    paths = clips(tmp_path, 3)
    paths[1].write_bytes(b"")
    found = probed(paths, FunctionReward(crest))
    assert found.clips == 2 and "empty" in found.skipped[0]
    with pytest.raises(AudioError, match="1 of 1 clips"):
        probed(paths[:1], FunctionReward(crest))
    with pytest.raises(AudioError, match="do not differ"):
        probed([paths[0], paths[0]], FunctionReward(crest))


def test_damage_has_the_documented_size() -> None:
    random = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    wave = (0.4 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    added = noisy(wave, RATE, random) - wave
    assert 20 * np.log10(np.std(wave) / np.std(added)) == pytest.approx(10.0, abs=0.1)
    assert np.std(clipped(wave, RATE, random)) == pytest.approx(np.std(wave), rel=1e-3)
    assert np.mean(np.abs(clipped(wave, RATE, random)) > 0.99 * np.abs(clipped(wave, RATE, random)).max()) > 0.8
    back = resample_and_back(wave, RATE, 44100)
    assert len(back) == len(wave) and np.abs(back - wave)[200:-200].max() < 1e-3
    for change in PERTURBATIONS:
        made = change.apply(wave, RATE, random)
        assert made.dtype == np.float32 and np.isfinite(made).all() and len(made) > 0

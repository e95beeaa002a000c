"""What moves a reward: changes of a clip that should leave it alone, and damage that should not. All ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from plaudit.audio import read_audio, resample
from plaudit.errors import AudioError
from plaudit.evaluate.statistics import Interval, bootstrap_mean
from plaudit.types import Reward

Wave = NDArray[np.float32]
Expectation = Literal["stays", "falls", "free"]

TOLERANCE = 0.2
"""In standard deviations of the reward over the clips: less is staying, more is moving."""

HEADROOM = 0.5
"""Clips are turned down to this peak before anything else, so that +6 dB overloads nobody."""

NOISE_DB, TRIMMED, DRIVE = 10.0, 0.95, 8.0
"""The damage: noise this far below the clip, the share of it that trimming keeps, and how far into clipping it goes."""


@dataclass(frozen=True)
class Change:
    """A change of a clip, apply(wave [T], rate, random), and what a sound reward does about it.

    stays: the change cannot be heard, or hardly. falls: it is damage. free: an opinion, shown and not judged.
    """

    name: str
    expected: Expectation
    apply: Callable[[Wave, int, np.random.Generator], Wave]


def noisy(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    """White noise NOISE_DB below the clip's own level."""
    level = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    noise = random.standard_normal(len(wave)) * level * 10 ** (-NOISE_DB / 20)
    return np.asarray(wave + noise, dtype=np.float32)


def clipped(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    """Cut off at the peak divided by DRIVE, and brought back to the level it had."""
    ceiling = np.abs(wave).max() / DRIVE
    cut = np.clip(wave, -ceiling, ceiling)
    gain = np.sqrt(np.mean(np.square(wave)) / np.mean(np.square(cut)))
    return np.asarray(cut * gain, dtype=np.float32)


def through(wave: Wave, rate: int, other: int) -> Wave:
    """To another rate and back."""
    return np.asarray(resample(resample(wave, rate, other), other, rate), dtype=np.float32)


def _upwards(wave: Wave, rate: int, random: np.random.Generator) -> Wave:
    return through(wave, rate, 44100 if rate < 44100 else 48000 if rate < 48000 else 2 * rate)


CHANGES = (
    Change("louder by 6 dB", "stays", lambda wave, rate, random: wave * np.float32(10 ** (6 / 20))),
    Change("quieter by 6 dB", "stays", lambda wave, rate, random: wave * np.float32(10 ** (-6 / 20))),
    Change("resampled up and back", "stays", _upwards),
    Change("cut to 95 %", "stays", lambda wave, rate, random: wave[: round(TRIMMED * len(wave))]),
    Change("noise at 10 dB", "falls", noisy),
    Change("clipped", "falls", clipped),
    Change("half the length", "free", lambda wave, rate, random: wave[: len(wave) // 2]),
    Change("half the bandwidth", "free", lambda wave, rate, random: through(wave, rate, rate // 2)),
    Change("reversed", "free", lambda wave, rate, random: wave[::-1].copy()),
)


@dataclass(frozen=True)
class ProbeRow:
    """What a change did to the reward, in standard deviations of the reward over the clips.

    clips: how many the reward would score after the change. change: mean difference, None where it scored none.
    moved: mean absolute difference, which does not cancel. passed: None where nothing is expected.
    """

    name: str
    expected: Expectation
    clips: int
    change: Interval | None
    moved: float | None
    passed: bool | None


@dataclass(frozen=True)
class ProbeResult:
    """Rows by change. mean, deviation: of the reward over the unchanged clips. skipped: why files could not be used."""

    clips: int
    mean: float
    deviation: float
    rows: list[ProbeRow]
    silence_refused: bool
    skipped: list[str]


def probe_files(
    paths: Sequence[Path], prompt: str, reward: Reward, progress: Callable[[int, int], None], seed: int = 0
) -> ProbeResult:
    """Score each file as it is and after every change; AudioError where fewer than two differ in reward."""
    originals: list[float] = []
    differences: list[list[float]] = [[] for _ in CHANGES]
    skipped: list[str] = []
    for index, path in enumerate(paths):
        try:
            wave, rate = read_audio(path)
            wave = np.asarray(wave * min(1.0, HEADROOM / np.abs(wave).max()), dtype=np.float32)
            original = _score(reward, wave, rate, prompt)
        except AudioError as error:
            skipped.append(str(error))
        else:
            originals.append(original)
            for place, change in enumerate(CHANGES):
                random = np.random.default_rng([seed, index, place])
                try:
                    differences[place].append(_score(reward, change.apply(wave, rate, random), rate, prompt) - original)
                except AudioError:  # the change left too little to hear; the row's count says so
                    continue
        progress(index + 1, len(paths))
    deviation = float(np.std(originals, ddof=1)) if len(originals) > 1 else 0.0
    if deviation == 0.0:
        raise AudioError(f"{len(originals)} of {len(paths)} clips can be scored and do not differ in reward; give more")
    rows = [_row(change, np.array(own) / deviation, seed) for change, own in zip(CHANGES, differences, strict=True)]
    mean = float(np.mean(originals))
    return ProbeResult(len(originals), mean, deviation, rows, _refuses_silence(reward), skipped)


def _row(change: Change, moved: NDArray[np.float64], seed: int) -> ProbeRow:
    if not len(moved):
        return ProbeRow(change.name, change.expected, 0, None, None, None)
    interval, absolute = bootstrap_mean(moved, seed), float(np.abs(moved).mean())
    passed = {
        "stays": absolute < TOLERANCE,
        "falls": interval.high < 0 and interval.mean < -TOLERANCE,
        "free": None,
    }[change.expected]
    return ProbeRow(change.name, change.expected, len(moved), interval, absolute, passed)


def _score(reward: Reward, wave: Wave, rate: int, prompt: str) -> float:
    return reward.score([torch.from_numpy(wave)], rate, [prompt])[0].item()


def _refuses_silence(reward: Reward) -> bool:
    try:
        reward.score([torch.zeros(5 * 16000)], 16000, [""])
    except AudioError:
        return True
    return False

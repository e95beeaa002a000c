"""Headphone screening: three sounds a trial, one of which differs in a way that only headphones reveal.

Huggins pitch (Milne et al., Behavior Research Methods 53, 2021): white noise, the same in both ears but for one of the
three sounds, in whose right ear the band around 600 Hz is inverted. A faint tone is heard there over headphones, and
nothing over loudspeakers. Antiphase tone (Woods et al., Attention, Perception & Psychophysics 79, 2017): which of three
tones is quietest? One is 6 dB below the others; another one is inverted in one ear, and loudspeakers cancel it out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile

ScreeningKind = Literal["huggins", "antiphase"]

TRIALS = 6
INTERVALS = 3
RATE = 44_100
"""Hz; of both papers."""

SOUND_SECONDS, GAP_SECONDS, RAMP_SECONDS = 1.0, 0.5, 0.1
"""Each sound, the silence between two, and the raised-cosine ramps of each sound."""

CENTRE, HALF_BAND = 600.0, 0.06
"""Huggins pitch: the centre in Hz of the inverted band, and how far it reaches to each side, relative to that."""

TONE, QUIETER_DB = 200.0, 6.0
"""Antiphase: the tone in Hz, and how far the quietest is below the others."""

LEVEL = 0.1
"""RMS of noise and tones (-20 dBFS), which leaves room for the peaks of noise."""

NEEDED: dict[ScreeningKind, int] = {"huggins": 6, "antiphase": 5}
"""Right answers of six with which a listener passes, as in the papers."""

QUESTION: dict[ScreeningKind, str] = {
    "huggins": "Which of the three sounds has a faint tone in it?",
    "antiphase": "Which of the three tones is the quietest?",
}


@dataclass(frozen=True)
class Trial:
    """Where the sound to be found is, from 0. distractor: of an antiphase trial, where the inverted tone is."""

    target: int
    distractor: int | None = None


def trials(kind: ScreeningKind, seed: int) -> list[Trial]:
    """Six trials in random order: each of the three positions has the target twice."""
    rng = np.random.default_rng([seed, 0])
    targets = rng.permutation(np.repeat(np.arange(INTERVALS), TRIALS // INTERVALS))
    if kind == "huggins":
        return [Trial(int(target)) for target in targets]
    # Each of the two other positions once per target position.
    shift = np.empty(TRIALS, dtype=int)
    for target in range(INTERVALS):
        shift[targets == target] = rng.permutation([1, 2])
    return [Trial(int(t), int((t + s) % INTERVALS)) for t, s in zip(targets, shift, strict=True)]


def passes(kind: ScreeningKind, seed: int, answers: Sequence[int]) -> tuple[bool, int]:
    """Whether the answers, positions from 0, suffice, and how many are right."""
    if len(answers) != TRIALS:
        raise ValueError(f"a screening has {TRIALS} answers, not {len(answers)}")
    right = sum(answer == trial.target for answer, trial in zip(answers, trials(kind, seed), strict=True))
    return right >= NEEDED[kind], right


def trial_wave(kind: ScreeningKind, trial: Trial, seed: int) -> np.ndarray:
    """The three sounds of a trial with silence between them: stereo [T, 2], float64."""
    rng = np.random.default_rng([seed, 1])
    sounds = []
    for interval in range(INTERVALS):
        if kind == "huggins":
            sound = huggins_sound(rng, interval == trial.target)
        else:
            sound = antiphase_tone(interval == trial.target, interval == trial.distractor)
        sounds.append(sound)
    gap = np.zeros((round(GAP_SECONDS * RATE), 2))
    parts = [part for sound in sounds for part in (sound, gap)][:-1]
    return np.concatenate(parts)


def huggins_sound(rng: np.random.Generator, pitch: bool) -> np.ndarray:
    """White noise [T, 2], the same in both ears; with a pitch, the band around 600 Hz is inverted in the right ear."""
    samples = round(SOUND_SECONDS * RATE)
    left = rng.standard_normal(samples) * LEVEL
    right = left
    if pitch:
        spectrum = np.fft.rfft(left)
        frequencies = np.fft.rfftfreq(samples, 1 / RATE)
        spectrum[np.abs(frequencies - CENTRE) <= HALF_BAND * CENTRE] *= -1
        right = np.fft.irfft(spectrum, samples)
    return np.stack([left, right], axis=1) * _ramps(samples)[:, None]


def antiphase_tone(quiet: bool, inverted: bool) -> np.ndarray:
    """A tone of 200 Hz [T, 2]; `quiet` is 6 dB lower, `inverted` has opposite signs in the two ears."""
    samples = round(SOUND_SECONDS * RATE)
    amplitude = LEVEL * np.sqrt(2) * (10 ** (-QUIETER_DB / 20) if quiet else 1.0)
    left = amplitude * np.sin(2 * np.pi * TONE * np.arange(samples) / RATE)
    return np.stack([left, -left if inverted else left], axis=1) * _ramps(samples)[:, None]


def trial_audio(kind: ScreeningKind, seed: int, trial: int) -> bytes:
    """The wav file of trial number `trial`, from 0. It is not compressed: lossy codecs alter phases between
    channels."""
    wave = trial_wave(kind, trials(kind, seed)[trial], seed * TRIALS + trial)
    memory = io.BytesIO()
    soundfile.write(memory, wave.astype(np.float32), RATE, "PCM_16", format="WAV")
    return memory.getvalue()


def _ramps(samples: int) -> np.ndarray:
    """Raised-cosine ramps at both ends of a sound: [T]."""
    length = round(RAMP_SECONDS * RATE)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)
    return np.concatenate([rise, np.ones(samples - 2 * length), rise[::-1]])


def trial_seed(state: dict[str, Any], attempt: int) -> int:
    """The seed of an attempt: each has trials of its own."""
    return int(state["seed"]) * 1_000 + attempt

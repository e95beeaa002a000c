"""The audio that listeners get: clips of a prompt at one length, rate and loudness, and degraded versions for attention
checks.

Loudness is matched by a plain gain, since a limiter would alter what is compared. So a clip whose peaks would then
exceed the ceiling is refused, with the loudness at which all clips fit. Waveforms are mono float32 [T].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfilt

from plaudit.errors import AudioError
from plaudit.generate.loudness import SHORTEST_MEASURABLE_SECONDS, integrated_loudness, true_peak

TARGET = -23.0
"""LUFS of EBU R 128, which leaves room for the peaks of almost any music."""

CEILING = -1.0
"""Highest true peak in dBTP."""

FADE_SECONDS = 0.02
"""At the end of clips that were cut (ours)."""

LEAST_SECONDS = 1.0
"""Nothing shorter is worth comparing (ours)."""

HIGHEST_RATE = 48_000


@dataclass(frozen=True)
class MatchedClip:
    """A waveform as listeners get it, its loudness in LUFS and its true peak in dBTP."""

    wave: np.ndarray
    loudness: float
    true_peak: float


def common_rate(rates: Sequence[int]) -> int:
    """The highest of the clips' sampling rates, 48 kHz at most: none loses bandwidth that a listener could hear."""
    return min(max(rates), HIGHEST_RATE)


def common_length(waves: Mapping[str, np.ndarray], rate: int) -> dict[str, np.ndarray]:
    """Named waveforms cut to the shortest, all with the same short fade at the end if any was cut.

    AudioError, naming the clip, where the shortest has less than a second.
    """
    name, shortest = min(waves.items(), key=lambda item: len(item[1]))
    if len(shortest) < LEAST_SECONDS * rate:
        raise AudioError(f"{name} has {len(shortest) / rate:.2f} s; clips of a listening test have at least 1 s")
    samples = len(shortest)
    if all(len(wave) == samples for wave in waves.values()):
        return dict(waves)
    fade = round(FADE_SECONDS * rate)
    shape = np.ones(samples, dtype=np.float32)
    shape[samples - fade :] = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / fade)
    return {name: wave[:samples] * shape for name, wave in waves.items()}


def at_loudness(name: str, wave: np.ndarray, rate: int, target: float = TARGET) -> MatchedClip:
    """A waveform at `target` LUFS by a plain gain, whatever its peaks are then.

    AudioError, naming the clip, where its loudness can't be measured.
    """
    loudness = integrated_loudness(wave, rate)
    if not np.isfinite(loudness):
        short = len(wave) < SHORTEST_MEASURABLE_SECONDS * rate
        why = "too short" if short else "silent or too quiet"
        raise AudioError(f"the loudness of {name} can't be matched: it is {why} to be measured; leave its prompt out")
    gain = target - loudness
    return MatchedClip((wave * 10 ** (gain / 20)).astype(np.float32), target, true_peak(wave) + gain)


def check_peaks(peaks: Mapping[str, float], target: float = TARGET, ceiling: float = CEILING) -> None:
    """AudioError, in one line with a loudness that all fit at, where true peaks in dBTP at `target` exceed the
    ceiling."""
    over = [name for name, peak in peaks.items() if peak > ceiling]
    if not over:
        return
    worst = max(over, key=peaks.__getitem__)
    fits = np.floor((target - (peaks[worst] - ceiling)) * 10) / 10
    others = f" and {len(over) - 1} more" if len(over) > 1 else ""
    raise AudioError(
        f"the loudness of {worst}{others} can't be matched at {target:g} LUFS: peaks would be at "
        f"{peaks[worst]:+.1f} dBTP; set loudness to {fits:g} or lower, or leave its prompt out"
    )


def degraded(wave: np.ndarray, rate: int, seed: int) -> np.ndarray:
    """A version of the waveform [T] that any attentive listener likes less: band-limited to 1 kHz, with noise 6 dB
    below the music and four dropouts a second (ours)."""
    rng = np.random.default_rng(seed)
    low = sosfilt(butter(4, min(1_000.0, 0.45 * rate), fs=rate, output="sos"), wave)
    level = float(np.sqrt(np.mean(low**2)))
    result = low + rng.standard_normal(len(wave)) * level / 2
    hole = round(0.1 * rate)
    for start in rng.integers(0, max(1, len(wave) - hole), size=max(1, 4 * len(wave) // rate)):
        result[start : start + hole] = 0
    return result.astype(np.float32)

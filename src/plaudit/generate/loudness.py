"""Loudness by ITU-R BS.1770-4, and a normalizer that holds the target and a true-peak ceiling at once.

A gain alone misses the target wherever peaks stand in the way. Here a look-ahead limiter takes the peaks down. The
gain before it is raised until the result, as measured, is loud enough, and what is too much is taken off after it,
which is exact: loudness follows a plain gain decibel for decibel, but hardly one before a limiter, where it even jumps
when quiet passages come above the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyloudnorm
from scipy.ndimage import minimum_filter1d
from scipy.signal import oaconvolve, resample, resample_poly

LOUDNESS_TOLERANCE = 0.1
"""How far, in LU, a result may lie from the target without a notice."""

SHORTEST_MEASURABLE_SECONDS = 0.4
"""Length in seconds of one gating block of BS.1770: nothing shorter has a loudness."""

_OVERSAMPLING = 4
_BLOCK = 1 << 18  # samples oversampled at once, which bounds the memory of a long piece
_OVERLAP = 1 << 10  # samples of the neighbouring blocks that are looked at with each
_AIM = 0.2  # LU above the target that the search is content with; they are taken off again
_NEAR = 0.01  # LU below the target that pass for the target
_ROUNDS = 20
_OVERDRIVE = 30.0  # dB of gain beyond what the loudness alone asks for; more would bring up the noise floor (ours)
_SPEEDS = ((0.005, 0.080), (0.0005, 0.005), (0.0, 0.0005))
"""Of the limiter: seconds of look-ahead in which it closes, and in which it opens by a factor e, in dB (ours). The
first that reaches the target is taken: the faster ones bend the wave itself (a tone of 20 Hz needs that), the last all
but clips it."""
_MARGIN = 0.05  # dB kept under the ceiling, for what rounding to 16 bits adds and other meters see between samples


@dataclass(frozen=True)
class LoudnessResult:
    """What normalizing did.

    Loudness in LUFS before and after (-inf where there is none), true peak after in dBTP, the gain in dB that went
    into the limiter, and a notice where the clip is not at the target.
    """

    before: float
    after: float
    true_peak: float
    gain_db: float
    notice: str | None = None


def true_peak(wave: np.ndarray) -> float:
    """Peak of the waveform [T] between its samples, in dBTP, by 4 times oversampling; -inf for silence."""
    return _decibels(_envelope(wave).max(initial=0.0))


def integrated_loudness(wave: np.ndarray, rate: int) -> float:
    """Gated loudness of the mono waveform [T] in LUFS (BS.1770-4); -inf under -70 LUFS or under 0.4 s."""
    if len(wave) < SHORTEST_MEASURABLE_SECONDS * rate:
        return -np.inf
    return float(pyloudnorm.Meter(rate).integrated_loudness(np.asarray(wave, dtype=np.float64)))


def normalize_loudness(
    wave: np.ndarray, rate: int, target: float = -16.5, ceiling: float = -1.0
) -> tuple[np.ndarray, LoudnessResult]:
    """The waveform [T] at `target` LUFS with no true peak above `ceiling` dBTP, and what was measured.

    Silence, clips too quiet or too short to be measured, and those that cannot reach the target under the ceiling (a
    lone click: one sample of 400 ms cannot hold more) come back as they were, with a notice; turned down, where they
    stood above the ceiling.
    """
    before = integrated_loudness(wave, rate)
    if not np.isfinite(before):
        why = (
            f"shorter than {SHORTEST_MEASURABLE_SECONDS:g} s"
            if len(wave) < SHORTEST_MEASURABLE_SECONDS * rate
            else "silent or too quiet to measure"
        )
        return wave, LoudnessResult(before, before, true_peak(wave), 0.0, f"loudness left as it was: {why}")
    found = _loud_enough(wave, rate, target, ceiling, target - before)
    if found.loudness < target - LOUDNESS_TOLERANCE:
        gain = min(0.0, ceiling - _MARGIN - true_peak(wave))
        left = (wave * 10 ** (gain / 20)).astype(np.float32) if gain else wave
        why = f"no gain reaches {target:g} LUFS under {ceiling:g} dBTP"
        notice = f"loudness left at {before + gain:.1f} LUFS: {why}"
        return left, LoudnessResult(before, before + gain, true_peak(left), gain, notice)
    too_much = max(0.0, found.loudness - target)
    if too_much:
        wave = (found.wave * 10 ** (-too_much / 20)).astype(np.float32)
        after, peak = integrated_loudness(wave, rate), found.true_peak - too_much
    else:
        wave, after, peak = found.wave, found.loudness, found.true_peak
    return wave, LoudnessResult(before, after, peak, found.gain_db - too_much)


@dataclass(frozen=True)
class _Attempt:
    """What comes of a gain into the limiter."""

    gain_db: float
    wave: np.ndarray
    true_peak: float
    loudness: float


def _loud_enough(wave: np.ndarray, rate: int, target: float, ceiling: float, gain: float) -> _Attempt:
    """About the least gain that reaches the target, with the slowest limiter that can; where none can, any attempt.

    `gain` is what would do without a limiter.
    """
    envelope = _envelope(wave)
    for speed in _SPEEDS:
        found = _least_gain(wave, envelope, rate, target, ceiling, gain, speed)
        if found.loudness >= target - _NEAR:
            break
    return found


def _least_gain(
    wave: np.ndarray,
    envelope: np.ndarray,
    rate: int,
    target: float,
    ceiling: float,
    gain: float,
    speed: tuple[float, float],
) -> _Attempt:
    """The same of a limiter of one speed; where no gain reaches the target, the loudest that was tried."""
    most = gain + _OVERDRIVE
    quiet: list[_Attempt] = []
    loud: _Attempt | None = None
    for _ in range(_ROUNDS):
        limited, peak = _limited(wave, envelope, rate, gain, ceiling, speed)
        tried = _Attempt(gain, limited, peak, integrated_loudness(limited, rate))
        if tried.loudness < target - _NEAR:
            quiet.append(tried)
        else:
            loud = tried
        if loud is None:
            if gain >= most:
                break
            gain = min(most, gain + max(_AIM, (target + _AIM / 2 - tried.loudness) / _slope(quiet)))
        elif not quiet or loud.loudness - target <= _AIM or loud.gain_db - quiet[-1].gain_db < _NEAR:
            return loud
        else:
            gain = (quiet[-1].gain_db + loud.gain_db) / 2
    if loud is not None:
        return loud
    return max(quiet, key=lambda attempt: attempt.loudness)


def _slope(tried: list[_Attempt]) -> float:
    """How much of an added decibel the limiter lets through, as the last two attempts, of rising gain, tell."""
    if len(tried) < 2:
        return 1.0
    first, second = tried[-2:]
    return float(np.clip((second.loudness - first.loudness) / (second.gain_db - first.gain_db), 0.05, 1.0))


def _limited(
    wave: np.ndarray, envelope: np.ndarray, rate: int, gain_db: float, ceiling: float, speed: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """The waveform [T] amplified and limited, float32, and its true peak in dBTP, which is not above the ceiling.

    `envelope` is that of the waveform before the gain.
    """
    ceiling -= _MARGIN
    peak = _decibels(envelope.max()) + gain_db
    if peak <= ceiling:
        return (wave * 10 ** (gain_db / 20)).astype(np.float32), peak
    excess = 20 * np.log10(np.maximum(envelope, 1e-12)) + gain_db - ceiling  # [T]
    curve = gain_db + _gain_curve(np.minimum(0.0, -excess), rate, *speed)
    limited = wave * 10 ** (curve / 20)
    peak = true_peak(limited)
    # A moving gain bends the wave between its samples, so a little may still stick out.
    trim = min(0.0, ceiling - peak)
    return (limited * 10 ** (trim / 20)).astype(np.float32), peak + trim


def _gain_curve(required: np.ndarray, rate: int, attack: float, release: float) -> np.ndarray:
    """A smooth gain in dB [T], nowhere above `required` (dB, at most 0): it closes ahead and opens slowly."""
    # Depth decays by exp(-t / release) from each peak on; in the logarithm a running maximum follows the deepest.
    fall = np.arange(len(required)) / (release * rate)
    with np.errstate(divide="ignore"):
        depth = np.log(-required)
    released = -np.exp(np.maximum.accumulate(depth + fall) - fall)
    ahead = max(1, round(attack * rate))
    # lowest[n] = min(released[n .. n + ahead]); any mean over lowest[n - ahead .. n] is then beneath released[n].
    lowest = minimum_filter1d(released, ahead + 1, mode="nearest", origin=-((ahead + 1) // 2))
    window = np.hanning(ahead + 3)[1:-1]
    padded = np.concatenate([np.full(ahead, lowest[0]), lowest])
    return oaconvolve(padded, window / window.sum(), mode="valid")


def _envelope(wave: np.ndarray) -> np.ndarray:
    """At each sample the largest magnitude from the sample before to the sample after, between them included: [T]."""
    parts = [
        _fine_peaks(wave[max(0, start - _OVERLAP) : start + _BLOCK + _OVERLAP])[min(start, _OVERLAP) :][:_BLOCK]
        for start in range(0, len(wave), _BLOCK)
    ]
    following = np.concatenate([np.zeros(0), *parts])  # from each sample up to the next
    return np.maximum(following, np.concatenate([following[:1], following[:-1]]))


def _fine_peaks(wave: np.ndarray) -> np.ndarray:
    """The largest magnitude from each sample of the waveform up to the next: [T]."""
    samples = np.asarray(wave, dtype=np.float64)
    # Meters differ in how they pass the end of the highest octave: what neither an ideal filter nor a short one sees
    # above the ceiling will hardly be seen there by a third.
    ideal = resample(samples, _OVERSAMPLING * len(samples))
    short = resample_poly(samples, _OVERSAMPLING, 1)
    fine = np.maximum(_crests(ideal), _crests(short)).reshape(-1, _OVERSAMPLING).max(axis=1)
    return np.maximum(fine, np.abs(samples))


def _crests(fine: np.ndarray) -> np.ndarray:
    """Magnitudes [T], raised at each local maximum to the top of the parabola through it and its neighbours."""
    size = np.abs(fine)
    left, middle, right = size[:-2], size[1:-1], size[2:]
    bend = 2 * middle - left - right
    top = (middle >= left) & (middle >= right) & (bend > 0)
    size[1:-1][top] += ((left - right)[top] ** 2) / (8 * bend[top])
    return size


def _decibels(amplitude: float) -> float:
    return 20 * float(np.log10(amplitude)) if amplitude > 0 else -np.inf

"""Loudness by ITU-R BS.1770-4, and a normalizer that holds the target and a true-peak ceiling at once.

A gain alone misses the target wherever peaks stand in the way. Here a look-ahead limiter takes the peaks down, and
the gain before it is corrected until the result, as measured, is as loud as asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyloudnorm
import soxr
from scipy.ndimage import minimum_filter1d
from scipy.signal import oaconvolve

from plaudit.audio import fit_length

TOLERANCE = 0.1
"""How far, in LU, a result may lie from the target without a notice."""

SHORTEST = 0.4
"""Length in seconds of one gating block of BS.1770: nothing shorter has a loudness."""

_OVERSAMPLING = 4
_AIM = 0.02  # LU; correcting stops here
_ROUNDS = 16
_OVERDRIVE = 24.0  # dB of gain beyond what the loudness alone would ask for; more than that ruins the sound (ours)
_ATTACK = 0.005  # seconds of look-ahead in which the limiter closes (ours)
_RELEASE = 0.080  # seconds in which it opens again by a factor e, in dB (ours)
_MARGIN = 0.01  # dB kept under the ceiling, so that rounding to 16 bits stays beneath it


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


def true_peak(wave: np.ndarray, rate: int) -> float:
    """Peak of the waveform [T] between its samples, in dBTP, by 4 times oversampling; -inf for silence."""
    return _decibels(_envelope(wave, rate).max(initial=0.0))


def integrated_loudness(wave: np.ndarray, rate: int) -> float:
    """Gated loudness of the mono waveform [T] in LUFS (BS.1770-4); -inf under -70 LUFS or under 0.4 s."""
    if len(wave) < SHORTEST * rate:
        return -np.inf
    return float(pyloudnorm.Meter(rate).integrated_loudness(np.asarray(wave, dtype=np.float64)))


def normalize_loudness(
    wave: np.ndarray, rate: int, target: float = -16.5, ceiling: float = -1.0
) -> tuple[np.ndarray, LoudnessResult]:
    """The waveform [T] at `target` LUFS with no true peak above `ceiling` dBTP, and what was measured.

    Silence, and clips too quiet or too short to be measured, come back unchanged with a notice. Where the ceiling
    leaves less than the target (a lone click), the result is the nearest that was found, with a notice.
    """
    before = integrated_loudness(wave, rate)
    if not np.isfinite(before):
        why = f"shorter than {SHORTEST:g} s" if len(wave) < SHORTEST * rate else "silent or too quiet to measure"
        return wave, LoudnessResult(before, before, true_peak(wave, rate), 0.0, f"loudness left as it was: {why}")
    envelope = _envelope(wave, rate)
    gain, best = target - before, None
    low, high = gain - _OVERDRIVE, gain + _OVERDRIVE  # gains between which the answer lies
    tried: tuple[float, float] | None = None
    for _ in range(_ROUNDS):
        limited, peak = _limited(wave, envelope, rate, gain, ceiling)
        after = integrated_loudness(limited, rate)
        error = target - after
        if best is None or abs(error) < abs(target - best[1].after):
            best = limited, LoudnessResult(before, after, peak, float(gain))
        if abs(error) <= _AIM or high - low < 1e-3:
            break
        low, high = (gain, high) if error > 0 else (low, gain)
        # The limiter swallows part of every added decibel: the last two rounds tell how much.
        slope = 1.0 if tried is None else (after - tried[1]) / (gain - tried[0])
        tried = gain, after
        step = gain + error / np.clip(slope, 0.05, 1.0)
        gain = step if low < step < high else (low + high) / 2
    assert best is not None
    wave, result = best
    if abs(target - result.after) > TOLERANCE:
        notice = f"loudness is {result.after:.1f} LUFS, not {target:g}: peaks leave no room under {ceiling:g} dBTP"
        result = LoudnessResult(result.before, result.after, result.true_peak, result.gain_db, notice)
    return wave, result


def _limited(
    wave: np.ndarray, envelope: np.ndarray, rate: int, gain_db: float, ceiling: float
) -> tuple[np.ndarray, float]:
    """The waveform [T] amplified and limited, float32, and its true peak in dBTP, which is not above the ceiling.

    `envelope` is that of the waveform before the gain.
    """
    ceiling -= _MARGIN
    peak = _decibels(envelope.max()) + gain_db
    if peak <= ceiling:
        return (wave * 10 ** (gain_db / 20)).astype(np.float32), peak
    excess = 20 * np.log10(np.maximum(envelope, 1e-12)) + gain_db - ceiling  # [T]
    curve = gain_db + _gain_curve(np.minimum(0.0, -excess), rate)
    limited = wave * 10 ** (curve / 20)
    peak = true_peak(limited, rate)
    # A moving gain bends the wave between its samples, so a little may still stick out.
    trim = min(0.0, ceiling - peak)
    return (limited * 10 ** (trim / 20)).astype(np.float32), peak + trim


def _gain_curve(required: np.ndarray, rate: int) -> np.ndarray:
    """A smooth gain in dB [T], nowhere above `required` (dB, at most 0): it closes ahead and opens slowly."""
    # Depth decays by exp(-t / release) from each peak on; in the logarithm a running maximum follows the deepest.
    fall = np.arange(len(required)) / (_RELEASE * rate)
    with np.errstate(divide="ignore"):
        depth = np.log(-required)
    released = -np.exp(np.maximum.accumulate(depth + fall) - fall)
    ahead = max(1, round(_ATTACK * rate))
    # lowest[n] = min(released[n .. n + ahead]); any mean over lowest[n - ahead .. n] is then beneath released[n].
    lowest = minimum_filter1d(released, ahead + 1, mode="nearest", origin=-((ahead + 1) // 2))
    window = np.hanning(ahead + 3)[1:-1]
    padded = np.concatenate([np.full(ahead, lowest[0]), lowest])
    return oaconvolve(padded, window / window.sum(), mode="valid")


def _envelope(wave: np.ndarray, rate: int) -> np.ndarray:
    """At each sample the largest magnitude from the sample before to the sample after, between them included: [T]."""
    samples = np.asarray(wave, dtype=np.float64)
    fine = soxr.resample(samples, rate, _OVERSAMPLING * rate, quality="VHQ")
    fine = np.abs(fit_length(fine, _OVERSAMPLING * len(samples))).reshape(-1, _OVERSAMPLING).max(axis=1, initial=0.0)
    following = np.maximum(fine, np.abs(samples))  # from each sample up to the next
    return np.maximum(following, np.concatenate([following[:1], following[:-1]]))


def _decibels(amplitude: float) -> float:
    return 20 * float(np.log10(amplitude)) if amplitude > 0 else -np.inf

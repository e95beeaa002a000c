"""Loudness by ITU-R BS.1770-4, and a normalizer that meets the target and a true-peak ceiling at once.

A gain alone misses the target wherever peaks exceed the ceiling, so a look-ahead limiter reduces them. The gain before
it is raised until the measured result is loud enough, and any excess is removed after it, which is exact: loudness
follows a plain gain decibel for decibel, but not a gain before a limiter, where it even jumps when quiet passages rise
above the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyloudnorm
from scipy.ndimage import minimum_filter1d
from scipy.signal import oaconvolve, resample, resample_poly

LOUDNESS_TOLERANCE = 0.1
"""Largest distance in LU of a result from the target without a notice."""

SHORTEST_MEASURABLE_SECONDS = 0.4
"""One gating block of BS.1770: nothing shorter has a loudness."""

PUBLISHED_MOST, PUBLISHED_PEAK = 0.99, 0.95
"""Peak above which the paper's scripts scale a clip down, and the peak to which they scale."""

_OVERSAMPLING = 4
_BLOCK = 1 << 18  # samples oversampled at once, which bounds the memory of a long piece
_OVERLAP = 1 << 10  # samples of the neighbouring blocks that are oversampled with each
_EXCESS = 0.2  # LU above the target at which the search stops; the excess is removed afterwards
_NEAR = 0.01  # LU below the target that count as the target
_ROUNDS = 20
_OVERDRIVE = 30.0  # most dB of gain beyond what loudness alone needs; more would raise the noise floor (ours)
_SPEEDS = ((0.005, 0.080), (0.0005, 0.005), (0.0, 0.0005))
"""Attack (look-ahead) and release (by a factor e, in dB) of the limiter, in seconds (ours). The first that reaches the
target is used: the faster ones distort the wave itself (a tone of 20 Hz needs that), the last almost clips it."""
_MARGIN = 0.05  # dB below the ceiling, for rounding to 16 bits and other meters' interpolation


@dataclass(frozen=True)
class LoudnessResult:
    """Loudness in LUFS before and after (-inf for silence), true peak after in dBTP, the limiter's input gain in dB.

    notice: where the clip is not at the target.
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
    """The waveform [T] at `target` LUFS with no true peak above `ceiling` dBTP, and measurements.

    Silence, clips too quiet or too short to measure, and those that cannot reach the target under the ceiling (a lone
    click, for one) are left unchanged, with a notice; the last are turned down if they exceed the ceiling.
    """
    before = integrated_loudness(wave, rate)
    if not np.isfinite(before):
        return wave, _unmeasurable(wave, rate, before)
    best = _loud_enough(wave, rate, target, ceiling, target - before)
    if best.loudness < target - LOUDNESS_TOLERANCE:
        gain = min(0.0, ceiling - _MARGIN - true_peak(wave))
        wave = (wave * 10 ** (gain / 20)).astype(np.float32) if gain else wave
        why = f"no gain reaches {target:g} LUFS under {ceiling:g} dBTP"
        notice = f"loudness left at {before + gain:.1f} LUFS: {why}"
        return wave, LoudnessResult(before, before + gain, true_peak(wave), gain, notice)
    excess = max(0.0, best.loudness - target)
    if not excess:
        return best.wave, LoudnessResult(before, best.loudness, best.true_peak, best.gain_db)
    wave = (best.wave * 10 ** (-excess / 20)).astype(np.float32)
    after = integrated_loudness(wave, rate)
    return wave, LoudnessResult(before, after, best.true_peak - excess, best.gain_db - excess)


def normalize_loudness_as_published(wave: np.ndarray, rate: int, target: float) -> tuple[np.ndarray, LoudnessResult]:
    """The waveform [T] as the paper's script leaves it, and measurements.

    One gain to `target` LUFS; where a sample then exceeds 0.99, the clip is scaled to a peak of 0.95 and misses the
    target. What cannot be measured is left unchanged, with a notice (of silence the script makes NaN).
    """
    before = integrated_loudness(wave, rate)
    if not np.isfinite(before):
        return wave, _unmeasurable(wave, rate, before)
    gain = 10 ** ((target - before) / 20)
    peak = float(np.abs(wave).max()) * gain
    if peak > PUBLISHED_MOST:
        gain *= PUBLISHED_PEAK / peak
    wave = (wave * gain).astype(np.float32)
    after, gain_db = integrated_loudness(wave, rate), _decibels(gain)
    notice = None
    if abs(after - target) > LOUDNESS_TOLERANCE:
        notice = f"loudness left at {after:.1f} LUFS: peaks scaled to {PUBLISHED_PEAK}"
    return wave, LoudnessResult(before, after, true_peak(wave), gain_db, notice)


def _unmeasurable(wave: np.ndarray, rate: int, loudness: float) -> LoudnessResult:
    """Of a waveform [T] without a loudness, which is left as it is."""
    short = len(wave) < SHORTEST_MEASURABLE_SECONDS * rate
    why = f"shorter than {SHORTEST_MEASURABLE_SECONDS:g} s" if short else "silent or too quiet to measure"
    return LoudnessResult(loudness, loudness, true_peak(wave), 0.0, f"loudness left as it was: {why}")


@dataclass(frozen=True)
class _Attempt:
    """The result of one gain into the limiter."""

    gain_db: float
    wave: np.ndarray
    true_peak: float
    loudness: float


def _loud_enough(wave: np.ndarray, rate: int, target: float, ceiling: float, gain: float) -> _Attempt:
    """About the smallest gain that reaches the target, with the slowest limiter that can; where none can, any attempt.

    gain: that which would be enough without a limiter.
    """
    envelope = _envelope(wave)
    for speed in _SPEEDS:
        attempt = _least_gain(wave, envelope, rate, target, ceiling, gain, speed)
        if attempt.loudness >= target - _NEAR:
            break
    return attempt


def _least_gain(
    wave: np.ndarray,
    envelope: np.ndarray,
    rate: int,
    target: float,
    ceiling: float,
    gain: float,
    speed: tuple[float, float],
) -> _Attempt:
    """The same for one limiter speed; where no gain reaches the target, the loudest attempt."""
    most = gain + _OVERDRIVE
    quiet: list[_Attempt] = []
    loud: _Attempt | None = None
    for _ in range(_ROUNDS):
        limited, peak = _limited(wave, envelope, rate, gain, ceiling, speed)
        attempt = _Attempt(gain, limited, peak, integrated_loudness(limited, rate))
        if attempt.loudness < target - _NEAR:
            quiet.append(attempt)
        else:
            loud = attempt
        if loud is None:
            if gain >= most:
                break
            gain = min(most, gain + max(_EXCESS, (target + _EXCESS / 2 - attempt.loudness) / _slope(quiet)))
        elif not quiet or loud.loudness - target <= _EXCESS or loud.gain_db - quiet[-1].gain_db < _NEAR:
            return loud
        else:
            gain = (quiet[-1].gain_db + loud.gain_db) / 2
    if loud is not None:
        return loud
    return max(quiet, key=lambda attempt: attempt.loudness)


def _slope(attempts: list[_Attempt]) -> float:
    """Loudness per decibel of gain through the limiter, by the last two attempts of rising gain."""
    if len(attempts) < 2:
        return 1.0
    first, second = attempts[-2:]
    return float(np.clip((second.loudness - first.loudness) / (second.gain_db - first.gain_db), 0.05, 1.0))


def _limited(
    wave: np.ndarray, envelope: np.ndarray, rate: int, gain_db: float, ceiling: float, speed: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """The waveform [T] amplified and limited, float32, and its true peak in dBTP, not above the ceiling.

    envelope: of the waveform before the gain.
    """
    ceiling -= _MARGIN
    peak = _decibels(envelope.max()) + gain_db
    if peak <= ceiling:
        return (wave * 10 ** (gain_db / 20)).astype(np.float32), peak
    excess = 20 * np.log10(np.maximum(envelope, 1e-12)) + gain_db - ceiling  # [T]
    curve = gain_db + _gain_curve(np.minimum(0.0, -excess), rate, *speed)
    limited = wave * 10 ** (curve / 20)
    peak = true_peak(limited)
    # A varying gain changes the wave between its samples, so a little may still exceed the ceiling.
    trim = min(0.0, ceiling - peak)
    return (limited * 10 ** (trim / 20)).astype(np.float32), peak + trim


def _gain_curve(required: np.ndarray, rate: int, attack: float, release: float) -> np.ndarray:
    """A smooth gain in dB [T], nowhere above `required` (dB, at most 0), with look-ahead attack and slow release."""
    # Depth decays by exp(-t / release) from each peak on; in the logarithm a running maximum follows the deepest.
    fall = np.arange(len(required)) / (release * rate)
    with np.errstate(divide="ignore"):
        depth = np.log(-required)
    released = -np.exp(np.maximum.accumulate(depth + fall) - fall)
    reach = max(1, round(attack * rate))
    # lowest[n] = min(released[n .. n + reach]); any mean over lowest[n - reach .. n] is then below released[n].
    lowest = minimum_filter1d(released, reach + 1, mode="nearest", origin=-((reach + 1) // 2))
    window = np.hanning(reach + 3)[1:-1]
    padded = np.concatenate([np.full(reach, lowest[0]), lowest])
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
    # Meters' interpolation filters differ near the Nyquist frequency: a peak that neither an ideal nor a short filter
    # shows above the ceiling is unlikely to be shown there by a third.
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

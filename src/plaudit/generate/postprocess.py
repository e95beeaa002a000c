"""From what a model makes to what a listener gets: exact length, soft edges, one loudness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from plaudit.audio import check_finite, fit_length
from plaudit.errors import AudioError
from plaudit.generate.loudness import integrated_loudness, normalize_loudness, true_peak


@dataclass(frozen=True)
class PostprocessSettings:
    """loudness in LUFS (None leaves it alone), ceiling in dBTP, fade_ms at both ends, seconds of the result (None keeps
    the length; a longer clip is cut, a shorter one padded with silence)."""

    loudness: float | None = -16.5
    ceiling: float = -1.0
    fade_ms: float = 10.0
    seconds: float | None = None


def postprocess(wave: np.ndarray, rate: int, settings: PostprocessSettings) -> tuple[np.ndarray, dict[str, Any]]:
    """The finished waveform [T], and its measurements as plain JSON values (None where there is no loudness).

    Raises AudioError for a waveform that is empty, not one-dimensional, or not finite.
    """
    if wave.ndim != 1 or wave.size == 0:
        raise AudioError(f"cannot finish a waveform of shape {list(wave.shape)}; it must be [T] with T at least 1")
    check_finite(wave, "the waveform")
    samples = len(wave) if settings.seconds is None else round(settings.seconds * rate)
    # Fading before padding softens the end of the sound, not of the silence after it.
    wave = fit_length(_faded(wave[:samples], round(settings.fade_ms / 1000 * rate)), samples)
    if settings.loudness is None:
        loudness = integrated_loudness(wave, rate)
        before, after, peak, gain, notice = loudness, loudness, true_peak(wave, rate), 0.0, None
    else:
        wave, done = normalize_loudness(wave, rate, settings.loudness, settings.ceiling)
        before, after, peak, gain, notice = done.before, done.after, done.true_peak, done.gain_db, done.notice
    return wave, {
        "seconds": len(wave) / rate,
        "loudness_before": _rounded(before),
        "loudness": _rounded(after),
        "true_peak": _rounded(peak),
        "gain_db": _rounded(gain),
        "notice": notice,
    }


def _faded(wave: np.ndarray, samples: int) -> np.ndarray:
    """The waveform [T] with raised-cosine edges of `samples` samples, at most half of it each."""
    samples = min(samples, len(wave) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / max(1, samples))
    gain = np.ones(len(wave))
    gain[:samples] = ramp
    gain[len(wave) - samples :] = ramp[::-1]
    return (wave * gain).astype(np.float32)


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None

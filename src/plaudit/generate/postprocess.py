"""From what a model makes to what a listener gets, in memory.

The order: the rate asked for, separation (which ends in mono), DC removal, exact length and soft edges, loudness under
the ceiling. Each step would undo part of a later one if it came after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plaudit.audio import check_finite, fit_length, resample
from plaudit.errors import AudioError
from plaudit.generate.loudness import integrated_loudness, normalize_loudness, true_peak
from plaudit.generate.separation import NOT_INSTALLED, Separator
from plaudit.generate.settings import PostSettings

OFFSET = 1e-4
"""A mean below this (-80 dBFS) is no offset but the sound's own, and is left (ours): taking it off would put a constant
into digital silence."""


def postprocess(
    waves: Sequence[np.ndarray], rate: int, settings: PostSettings, separator: Separator | None = None
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Each finished waveform [T], at settings.rate where there is one, and its measurements as plain JSON values.

    separator: of settings.separate; where passes are asked for and there is none, the measurements have a notice. A
    value that does not exist (the loudness of silence) is None. AudioError for a waveform that is empty, not
    one-dimensional, or not finite.
    """
    for wave in waves:
        if wave.ndim != 1 or wave.size == 0:
            raise AudioError(f"cannot finish a waveform of shape {list(wave.shape)}; it must be [T] with T at least 1")
        check_finite(wave, "the waveform")
    if settings.rate is not None:
        waves, rate = [resample(wave, rate, settings.rate) for wave in waves], settings.rate
    told: list[dict[str, Any]] = [{} for _ in waves]
    notice = None
    if settings.separate.passes and separator is None:
        notice = NOT_INSTALLED
    elif settings.separate.passes and separator is not None:
        made = separator(waves, rate, settings.separate)
        waves = [one.wave for one in made]
        told = [{"vocals_removed_lu": [_rounded(level) for level in one.removed]} for one in made]
    return [_finished(wave, rate, settings, facts, notice) for wave, facts in zip(waves, told, strict=True)]


def _finished(
    wave: np.ndarray, rate: int, settings: PostSettings, facts: dict[str, Any], notice: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip from its separation on."""
    offset = float(wave.mean(dtype=np.float64)) if settings.remove_dc else 0.0
    if abs(offset) > OFFSET:
        wave = (wave - offset).astype(np.float32)
    samples = len(wave) if settings.seconds is None else round(settings.seconds * rate)
    # Fading before padding softens the end of the sound, not of the silence after it.
    wave = fit_length(_faded(wave[:samples], round(settings.fade_ms / 1000 * rate)), samples)
    if settings.loudness is None:
        loudness = integrated_loudness(wave, rate)
        before, after, peak, gain, missed = loudness, loudness, true_peak(wave), 0.0, None
    else:
        wave, done = normalize_loudness(wave, rate, settings.loudness, settings.ceiling)
        before, after, peak, gain, missed = done.before, done.after, done.true_peak, done.gain_db, done.notice
    return wave, {
        "seconds": len(wave) / rate,
        **facts,
        "loudness_before": _rounded(before),
        "loudness": _rounded(after),
        "true_peak": _rounded(peak),
        "gain_db": _rounded(gain),
        "notice": "; ".join(text for text in (notice, missed) if text) or None,
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

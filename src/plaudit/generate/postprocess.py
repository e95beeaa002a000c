"""Finished clips: post-processed, encoded, and measured again as they are read back.

The order: the rate asked for, separation (which ends in mono), DC removal, exact length and soft edges, loudness under
the ceiling. Each step would undo part of a later one if it came after it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from plaudit.audio import check_finite, fit_length, resample
from plaudit.audio_format import AudioFormat, decode_audio, encode_audio
from plaudit.errors import AudioError
from plaudit.generate.loudness import LOUDNESS_TOLERANCE, integrated_loudness, normalize_loudness, true_peak
from plaudit.generate.separation import NOT_INSTALLED, Separator, load_separator
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


_RETRIES = 4
"""New encodings of a lossy file at most (ours): each lowers the limiter's ceiling by what the one before stuck out."""

_SPARE = 0.02
"""dB beyond what a lossy encoding stuck out by that the next one is lower (ours)."""


@dataclass(frozen=True)
class Delivery:
    """What is done to clips between the model and the file. separator: loaded, where passes are asked for."""

    post: PostSettings = field(default_factory=PostSettings)
    file: AudioFormat = field(default_factory=AudioFormat)
    separator: Separator | None = None


@dataclass(frozen=True)
class Delivered:
    """A file's content, its rate in Hz, and what was measured of it after reading it back."""

    encoded: bytes
    rate: int
    measured: dict[str, Any]


def prepared_delivery(post: PostSettings, file: AudioFormat, device: torch.device | str = "cpu") -> Delivery:
    """The delivery with its separator loaded once, for any number of clips.

    AudioError for a format that cannot be written here, ModelError for a separation model that is not there.
    """
    file.check_writable()
    separator = load_separator(post.separate.model, device) if post.separate.passes else None
    return Delivery(post, file, separator)


def deliver(
    waves: Sequence[np.ndarray], rate: int, delivery: Delivery, tags: Sequence[dict[str, Any]]
) -> list[Delivered]:
    """The files of clips [T] at `rate`, each with its tags; dither is seeded by the tags' prompt and seed.

    What is decoded from a lossy file has other peaks than what was encoded: it is encoded again under a lower ceiling
    until it keeps to the one asked for, or the notice says that it does not.
    """
    finished = postprocess(waves, rate, delivery.post, delivery.separator)
    rate = delivery.post.rate or rate
    return [_file(wave, rate, delivery, measured, tag) for (wave, measured), tag in zip(finished, tags, strict=True)]


def _file(
    wave: np.ndarray, rate: int, delivery: Delivery, measured: dict[str, Any], tags: dict[str, Any]
) -> Delivered:
    """One clip's file, and its measurements with loudness and true peak as decoded."""
    post, file = delivery.post, delivery.file
    seed = zlib.crc32(f"{tags.get('seed')} {tags.get('prompt')}".encode())
    encoded, loudness, peak = _encoded(wave, rate, file, seed, tags)
    if file.lossy and post.loudness is not None and np.isfinite(loudness):
        reached = measured["loudness"] is not None and abs(measured["loudness"] - post.loudness) <= LOUDNESS_TOLERANCE
        target, ceiling = post.loudness, post.ceiling
        for _ in range(_RETRIES):
            over = max(0.0, peak - post.ceiling)
            off = loudness - post.loudness if reached else 0.0
            if not over and abs(off) <= LOUDNESS_TOLERANCE / 2:
                break
            target, ceiling = target - off, ceiling - (over + _SPARE if over else 0.0)
            encoded, loudness, peak = _encoded(
                normalize_loudness(wave, rate, target, ceiling)[0], rate, file, seed, tags
            )
    told = measured | {
        "loudness": round(loudness, 3) if np.isfinite(loudness) else None,
        "true_peak": round(peak, 3) if np.isfinite(peak) else None,
    }
    if file.lossy and post.loudness is not None and peak > post.ceiling:
        missed = f"the {file.container} reaches {peak:.2f} dBTP, above {post.ceiling:g}"
        told["notice"] = "; ".join(text for text in (measured["notice"], missed) if text)
    return Delivered(encoded, rate, told)


def _encoded(
    wave: np.ndarray, rate: int, file: AudioFormat, seed: int, tags: dict[str, Any]
) -> tuple[bytes, float, float]:
    """The file's content, and loudness and true peak of what is read back from it."""
    encoded = encode_audio(wave, rate, file, seed, tags)
    heard = decode_audio(encoded)
    return encoded, integrated_loudness(heard, rate), true_peak(heard)

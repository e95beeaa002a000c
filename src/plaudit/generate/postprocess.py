"""From a decoded waveform to an audio file: post-processing, encoding, and measuring what the file decodes to.

The order is resampling, separation (which ends in mono), DC removal, exact length and fades, loudness under the
ceiling. Each step would undo part of a later one if it came after it. The published chain is exact length, separation
and loudness, as in the paper's scripts.
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
from plaudit.generate.loudness import (
    LOUDNESS_TOLERANCE,
    LoudnessResult,
    integrated_loudness,
    normalize_loudness,
    normalize_loudness_as_published,
    true_peak,
)
from plaudit.generate.separation import NOT_INSTALLED, Separator, load_separator
from plaudit.generate.settings import PostSettings

OFFSET = 1e-4
"""A mean below this (-80 dBFS) is left (ours): removing it would put a constant into digital silence."""


def postprocess(
    waves: Sequence[np.ndarray],
    rate: int,
    settings: PostSettings,
    separator: Separator | None = None,
    seeds: Sequence[int] | None = None,
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Each post-processed waveform [T], at settings.rate if set, and its measurements as plain JSON values.

    separator: for settings.separate; without one, passes are left out and the measurements have a notice. seeds: of the
    published chain's random shifts, one a clip, by default 0 for each. A value that does not exist (the loudness of
    silence) is None. AudioError for a waveform that is empty, not one-dimensional, or not finite.
    """
    for wave in waves:
        if wave.ndim != 1 or wave.size == 0:
            raise AudioError(
                f"cannot post-process a waveform of shape {list(wave.shape)}; it must be [T] with T at least 1"
            )
        check_finite(wave, "the waveform")
    if settings.rate is not None:
        waves, rate = [resample(wave, rate, settings.rate) for wave in waves], settings.rate
    notice = NOT_INSTALLED if settings.separate.passes and separator is None else None
    if settings.chain == "published":
        rows = zip(waves, [0] * len(waves) if seeds is None else seeds, strict=True)
        return [_as_published(wave, rate, settings, separator, seed, notice) for wave, seed in rows]
    extra: list[dict[str, Any]] = [{} for _ in waves]
    if settings.separate.passes and separator is not None:
        separated = separator(waves, rate, settings.separate)
        waves = [clip.wave for clip in separated]
        extra = [{"vocals_removed_lu": [_rounded(level) for level in clip.removed]} for clip in separated]
    return [_finish(wave, rate, settings, row, notice) for wave, row in zip(waves, extra, strict=True)]


def _finish(
    wave: np.ndarray, rate: int, settings: PostSettings, extra: dict[str, Any], notice: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip after separation."""
    offset = float(wave.mean(dtype=np.float64)) if settings.remove_dc else 0.0
    if abs(offset) > OFFSET:
        wave = (wave - offset).astype(np.float32)
    samples = len(wave) if settings.seconds is None else round(settings.seconds * rate)
    # Fading before padding softens the end of the sound, not of the silence after it.
    wave = fit_length(_fade(wave[:samples], round(settings.fade_ms / 1000 * rate)), samples)
    return _at_loudness(wave, rate, settings, extra, notice)


def _as_published(
    wave: np.ndarray, rate: int, settings: PostSettings, separator: Separator | None, seed: int, notice: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip by the published chain."""
    if settings.seconds is not None:
        wave = fit_length(wave, round(settings.seconds * rate))
    if settings.separate.passes and separator is not None:
        wave = separator.as_published(wave, rate, settings.separate, seed)
    return _at_loudness(wave, rate, settings, {}, notice)


def _at_loudness(
    wave: np.ndarray, rate: int, settings: PostSettings, extra: dict[str, Any], notice: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip brought to settings.loudness by the chain's method, and its measurements."""
    if settings.loudness is None:
        loudness = integrated_loudness(wave, rate)
        result = LoudnessResult(loudness, loudness, true_peak(wave), 0.0)
    elif settings.chain == "published":
        wave, result = normalize_loudness_as_published(wave, rate, settings.loudness)
    else:
        wave, result = normalize_loudness(wave, rate, settings.loudness, settings.ceiling)
    return wave, {
        "seconds": len(wave) / rate,
        **extra,
        "loudness_before": _rounded(result.before),
        "loudness": _rounded(result.after),
        "true_peak": _rounded(result.true_peak),
        "gain_db": _rounded(result.gain_db),
        "notice": "; ".join(text for text in (notice, result.notice) if text) or None,
    }


def _fade(wave: np.ndarray, samples: int) -> np.ndarray:
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
"""Re-encodings of a lossy file at most (ours): each lowers the limiter's ceiling by the overshoot of the last one."""

_SPARE = 0.02
"""dB by which the ceiling is lowered beyond the overshoot (ours)."""


@dataclass(frozen=True)
class EncodedClip:
    """A file's content, its rate in Hz, and measurements of what it decodes to."""

    content: bytes
    rate: int
    measured: dict[str, Any]


@dataclass(frozen=True)
class PostProcessor:
    """Post-processing and file format of clips. separator: loaded, where settings.separate has passes."""

    settings: PostSettings = field(default_factory=PostSettings)
    file: AudioFormat = field(default_factory=AudioFormat)
    separator: Separator | None = None

    @classmethod
    def load(cls, settings: PostSettings, file: AudioFormat, device: torch.device | str = "cpu") -> PostProcessor:
        """With its separator loaded once, for any number of clips.

        AudioError for a format that cannot be written here, ModelError for a separation model that does not exist.
        """
        file.check_writable()
        separator = load_separator(settings.separate.model, device) if settings.separate.passes else None
        return cls(settings, file, separator)

    def encode(self, waves: Sequence[np.ndarray], rate: int, tags: Sequence[dict[str, Any]]) -> list[EncodedClip]:
        """The files of clips [T] at `rate`, each with its tags; their prompt and seed are the seed of the dither and of
        the published chain's random shifts.

        What a lossy file decodes to has other peaks than what was encoded: it is encoded again under a lower ceiling
        until it keeps to the configured one; where it never does, the notice says so.
        """
        finished = postprocess(waves, rate, self.settings, self.separator, [_seed(tag) for tag in tags])
        rate = self.settings.rate or rate
        return [self._file(wave, rate, measured, tag) for (wave, measured), tag in zip(finished, tags, strict=True)]

    def _file(self, wave: np.ndarray, rate: int, measured: dict[str, Any], tags: dict[str, Any]) -> EncodedClip:
        """One clip's file, with loudness and true peak measured after decoding it."""
        post, file = self.settings, self.file
        seed = _seed(tags)
        content, loudness, peak = _encode(wave, rate, file, seed, tags)
        limited_again = file.lossy and post.loudness is not None and post.chain == "limiter"
        if limited_again and post.loudness is not None and np.isfinite(loudness):
            reached = (
                measured["loudness"] is not None and abs(measured["loudness"] - post.loudness) <= LOUDNESS_TOLERANCE
            )
            target, ceiling = post.loudness, post.ceiling
            for _ in range(_RETRIES):
                over = max(0.0, peak - post.ceiling)
                off = loudness - post.loudness if reached else 0.0
                if not over and abs(off) <= LOUDNESS_TOLERANCE / 2:
                    break
                target, ceiling = target - off, ceiling - (over + _SPARE if over else 0.0)
                limited = normalize_loudness(wave, rate, target, ceiling)[0]
                content, loudness, peak = _encode(limited, rate, file, seed, tags)
        measured = measured | {"loudness": _rounded(loudness), "true_peak": _rounded(peak)}
        if limited_again and peak > post.ceiling:
            missed = f"the {file.container} reaches {peak:.2f} dBTP, above {post.ceiling:g}"
            measured["notice"] = "; ".join(text for text in (measured["notice"], missed) if text)
        return EncodedClip(content, rate, measured)


def _seed(tags: dict[str, Any]) -> int:
    return zlib.crc32(f"{tags.get('seed')} {tags.get('prompt')}".encode())


def _encode(
    wave: np.ndarray, rate: int, file: AudioFormat, seed: int, tags: dict[str, Any]
) -> tuple[bytes, float, float]:
    """The file's content, and loudness and true peak of what it decodes to."""
    content = encode_audio(wave, rate, file, seed, tags)
    decoded = decode_audio(content)
    return content, integrated_loudness(decoded, rate), true_peak(decoded)

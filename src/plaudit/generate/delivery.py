"""Finished clips as files: post-processed, encoded, and measured again as they are read back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from plaudit.audio_format import AudioFormat, decode_audio, encode_audio
from plaudit.generate.loudness import TOLERANCE, integrated_loudness, normalize_loudness, true_peak
from plaudit.generate.postprocess import postprocess
from plaudit.generate.separation import Separator, load_separator
from plaudit.generate.settings import PostSettings

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
        reached = measured["loudness"] is not None and abs(measured["loudness"] - post.loudness) <= TOLERANCE
        target, ceiling = post.loudness, post.ceiling
        for _ in range(_RETRIES):
            over = max(0.0, peak - post.ceiling)
            off = loudness - post.loudness if reached else 0.0
            if not over and abs(off) <= TOLERANCE / 2:
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

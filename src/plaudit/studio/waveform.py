"""What the page draws of a clip, without decoding it in the browser: peaks and a spectrogram.

No PyTorch: the server calls it where a cached file is missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from plaudit.studio.errors import Gone
from plaudit.writing import write_atomically

POINTS = 800
"""Pairs of least and largest samples along a clip."""

WIDTH, HEIGHT = 800, 160
"""Of a spectrogram."""


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """The waveform [T] of a file in the studio; Gone where it is missing or no longer readable."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError):
        raise Gone("the clip's file is gone or damaged; generate or upload it again") from None
    return samples.mean(axis=1), int(rate)


def peaks(wave: np.ndarray, points: int = POINTS) -> list[float]:
    """Least and largest sample of each of `points` equal parts, alternating, to 3 decimals."""
    if len(wave) == 0:
        return [0.0, 0.0]
    points = min(points, len(wave))
    starts = np.linspace(0, len(wave), points, endpoint=False).astype(int)
    pairs = np.stack([np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)], axis=1)
    return [float(value) for value in np.round(pairs.reshape(-1), 3)]


def write_drawings(path: Path, folder: Path, name: str) -> None:
    """Write a clip's peaks and spectrogram to the cache."""
    from plaudit.evaluate.pages.spectrogram import save_spectrogram

    wave, rate = read_mono(path)
    write_atomically(folder / f"{name}.peaks", np.asarray(peaks(wave), dtype="<f4").tobytes())
    save_spectrogram(folder / f"{name}.png", wave, rate, WIDTH, HEIGHT)

"""What the page draws of a clip, without decoding it in the browser: peaks and a spectrogram.

NumPy and soundfile only: the server may call it where a cached file is missing.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile

from plaudit.studio.errors import Gone
from plaudit.writing import write_atomically

POINTS = 800
"""Pairs of least and largest samples along a clip."""

WIDTH, HEIGHT = 800, 160
FRAME = 2048
RANGE_DB = 80.0
"""From the loudest to black."""

LOWEST_HZ = 40.0

_COLORS = (
    *((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99)),
    *((212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)),
)
"""From silence to the loudest."""


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


def spectrogram_png(wave: np.ndarray, rate: int) -> bytes:
    """Power over time and frequency, on a logarithmic axis from 40 Hz up, as a PNG of WIDTH x HEIGHT."""
    padded = np.pad(wave, (FRAME // 2, FRAME // 2))
    starts = np.linspace(0, max(0, len(padded) - FRAME), WIDTH).astype(int)
    window = np.hanning(FRAME).astype(np.float32)
    image = np.empty((HEIGHT, WIDTH), dtype=np.float32)
    edges = np.geomspace(LOWEST_HZ, rate / 2, HEIGHT + 1) * FRAME / rate
    low = np.minimum(edges[:-1].astype(int), FRAME // 2)
    for begin in range(0, WIDTH, 100):
        columns = starts[begin : begin + 100]
        frames = padded[columns[:, None] + np.arange(FRAME)] * window
        power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
        # At low frequencies several rows share a bin; at high ones a row has the loudest of its bins.
        bands = np.maximum.reduceat(power, low, axis=1)
        image[:, begin : begin + 100] = bands.T
    decibels = 10 * np.log10(np.maximum(image, 1e-12))
    level = np.clip((decibels - decibels.max()) / RANGE_DB + 1, 0, 1)[::-1]
    colors = np.asarray(_COLORS, dtype=np.float32)
    stops = np.linspace(0, 1, len(colors))
    pixels = np.stack([np.interp(level, stops, colors[:, channel]) for channel in range(3)], axis=2).astype(np.uint8)
    return _png(pixels)


def write_drawings(path: Path, folder: Path, name: str) -> None:
    """Write a clip's peaks and spectrogram to the cache."""
    wave, rate = read_mono(path)
    write_atomically(folder / f"{name}.peaks", np.asarray(peaks(wave), dtype="<f4").tobytes())
    write_atomically(folder / f"{name}.png", spectrogram_png(wave, rate))


def _png(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")

"""Pictures of clips; imports no PyTorch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib import colormaps, image

from plaudit.writing import write_atomically


def save_spectrogram(path: Path, wave: np.ndarray, rate: int, width: int = 320, height: int = 96) -> None:
    """Write the spectrogram of a clip [T]: 50 Hz to 8 kHz on a logarithmic axis, 70 dB of range."""
    window = min(2048, len(wave))
    hop = max(1, (len(wave) - window) // max(1, width - 1))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop][:width] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # [W, F]
    frequencies = np.geomspace(50.0, min(8000.0, 0.499 * rate), height)
    bins = frequencies * window / rate
    below = np.minimum(bins.astype(int), power.shape[1] - 2)
    weight = bins - below
    rows = power[:, below] * (1 - weight) + power[:, below + 1] * weight  # [W, H]
    level = 10.0 * np.log10(rows + 1e-12)
    shade = np.clip((level - level.max()) / 70.0 + 1.0, 0.0, 1.0)
    buffer = io.BytesIO()
    image.imsave(buffer, colormaps["magma"](shade.T[::-1], bytes=True), format="png")
    write_atomically(path, buffer.getvalue())

"""The unpitched sounds: one-shots of three kits, made once from integer noise and table sines."""

from __future__ import annotations

from functools import cache

import numpy as np

from plaudit.corpus.embedded.exact import TABLE_SIZE, sine_table, white_noise
from plaudit.corpus.embedded.timbres import SAMPLE_RATE, falling


def _tone(start_hz: float, end_hz: float, glide: float, half_life: float, seconds: float) -> np.ndarray:
    """A sine gliding from one frequency to another (half-life ``glide``), decaying."""
    length = int(seconds * SAMPLE_RATE)
    hertz = end_hz + (start_hz - end_hz) * falling(glide, length)
    phase = np.cumsum(hertz * (TABLE_SIZE / SAMPLE_RATE)).astype(np.int64) % TABLE_SIZE
    return sine_table()[phase] * falling(half_life, length)


def _hiss(seed: int, half_life: float, seconds: float, edge: int) -> np.ndarray:
    """Decaying noise, differenced ``edge`` times (brighter) or, below 0, neighbours added as often (duller)."""
    length = int(seconds * SAMPLE_RATE)
    noise = white_noise(seed, length + abs(edge)).astype(np.float64)
    for _ in range(abs(edge)):
        noise = (noise[1:] - noise[:-1]) * 0.7 if edge > 0 else (noise[1:] + noise[:-1]) * 0.7
    return noise * falling(half_life, length)


def _layer(*sounds: np.ndarray) -> np.ndarray:
    """The sum of sounds of different lengths."""
    total = np.zeros(max(len(sound) for sound in sounds))
    for sound in sounds:
        total[: len(sound)] += sound
    return total


def _clap(seed: int) -> np.ndarray:
    """Three quick bursts and a tail."""
    total = np.zeros(int(0.25 * SAMPLE_RATE))
    for start in (0, 170, 350):
        burst = _hiss(seed + start, 0.004, 0.03, -1)
        total[start : start + len(burst)] += burst
    tail = _hiss(seed + 9, 0.035, 0.2, -1)
    total[500 : 500 + len(tail)] += tail[: len(total) - 500]
    return total


@cache
def one_shot(kit: str, pitch: int) -> np.ndarray:
    """The waveform of a drum (36 low, 38 mid, 42 high, 46 open), float32, peak at most 1, ending in silence."""
    sound = _BUILDERS[kit, pitch]()
    fade = 200
    sound[-fade:] *= np.arange(fade - 1, -1, -1) / fade
    return (sound / float(np.abs(sound).max())).astype(np.float32) * np.float32(_GAINS[pitch])


_GAINS = {36: 1.0, 38: 0.75, 42: 0.32, 46: 0.38}
_BUILDERS = {
    ("acoustic drums", 36): lambda: _layer(_tone(150, 62, 0.012, 0.07, 0.3), 0.15 * _hiss(1, 0.004, 0.03, 0)),
    ("acoustic drums", 38): lambda: _layer(0.6 * _tone(240, 185, 0.02, 0.04, 0.2), 0.6 * _hiss(2, 0.05, 0.25, 0)),
    ("acoustic drums", 42): lambda: _hiss(3, 0.018, 0.12, 2),
    ("acoustic drums", 46): lambda: _layer(_hiss(4, 0.11, 0.5, 1), 0.3 * _tone(3150, 3150, 1.0, 0.12, 0.5)),
    ("drum machine", 36): lambda: _tone(190, 47, 0.022, 0.14, 0.45),
    ("drum machine", 38): lambda: _clap(20),
    ("drum machine", 42): lambda: _hiss(21, 0.009, 0.06, 3),
    ("drum machine", 46): lambda: _hiss(22, 0.07, 0.3, 3),
    ("hand percussion", 36): lambda: _tone(215, 196, 0.02, 0.055, 0.25),
    ("hand percussion", 38): lambda: _layer(_tone(345, 330, 0.02, 0.035, 0.2), 0.3 * _hiss(30, 0.004, 0.03, 0)),
    ("hand percussion", 42): lambda: _hiss(31, 0.022, 0.1, 1),
    ("hand percussion", 46): lambda: _layer(
        0.8 * _tone(815, 815, 1.0, 0.03, 0.15), 0.6 * _tone(545, 545, 1.0, 0.03, 0.15)
    ),
}

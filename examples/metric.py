"""A metric: the fraction of a clip's energy above 4 kHz.

Name it by its file, for `plaudit evaluate` and `plaudit sweep`, or in a recipe:

    plaudit evaluate clips/ --metric examples/metric.py:BRIGHTNESS
    evaluate: {metrics: [examples/metric.py:BRIGHTNESS]}

An installed package can name it instead, as an entry point of the group `plaudit.metrics`.
"""

from __future__ import annotations

import numpy as np

from plaudit.evaluate.embeddings import CachedClip
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.statistics import Array

RATE, CUTOFF = 16000, 4000


def brightness(clip: CachedClip, prompt: str) -> float:
    """In percent. A clip that cannot be read raises AudioError, and is then in no mean."""
    wave = clip.wave(RATE)[0].numpy()
    energy = np.square(np.abs(np.fft.rfft(wave)))
    frequencies = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(100 * energy[frequencies > CUTOFF].sum() / energy.sum())


def compute(inputs: MetricInputs) -> Array:
    """One value per clip; NaN where a clip has none."""
    return inputs.each(brightness)


BRIGHTNESS = Metric("brightness", "Brightness", compute, better="higher", unit="%")

"""Expected spectra of controls, averaged over phases: the first loss of the synthetic codec.

A rendered wave's spectrum depends on phases, and while all oscillators sound at once its gradient is mostly noise. In
the expected power, every oscillator adds its lobe and every band its noise. Ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.synthetic.codec import (
    NOISE_BANDS,
    NOISE_WINDOW,
    OSCILLATORS,
    SYNTHESIS_HOP,
    TONE_WINDOW,
    Controls,
    magnitude,
)
from tools.synthetic.losses import magnitude_distance


def expected_distance(controls: Controls, target: Tensor) -> Tensor:
    """Distance of the controls' expected spectra from wave [B, N * 256]'s at both windows, one value per clip [B]."""
    with torch.autocast(target.device.type, enabled=False):
        # The window of the oscillators and that of the spectrum each blur an amplitude over time.
        amplitude = blurred(controls.loudness.clamp(max=1).exp(), TONE_BLUR)  # [B, N, 512]
        noise = (2 * controls.noise.clamp(max=1)).exp()  # [B, 4N, 129]
        slow = blurred(noise.unflatten(1, (-1, 4)).mean(2), NOISE_BLUR)  # [B, N, 129]
        long = lobes(amplitude.square(), controls.bend) + slow @ BANDS_TO_BINS.to(noise) * (6 / TONE_WINDOW)
        short = (amplitude.square() @ BINS_TO_BANDS.to(noise)).repeat_interleave(4, 1) + noise * (6 / NOISE_WINDOW)
        return (
            magnitude_distance((long + 1e-12).sqrt(), magnitude(target, TONE_WINDOW, SYNTHESIS_HOP)[..., 1:])
            + magnitude_distance((short + 1e-12).sqrt(), magnitude(target, NOISE_WINDOW, NOISE_WINDOW // 4))
        ) / 2


def lobes(power: Tensor, bend: Tensor) -> Tensor:
    """Power and bend of the oscillators [B, N, 512] -> expected power in bins 1, 2, ... of an FFT of their window."""
    total = torch.zeros_like(power)
    for tap in range(-2, 3):
        part = power * lobe(tap - bend)
        total = total + (F.pad(part, (tap, 0))[..., :OSCILLATORS] if tap >= 0 else F.pad(part, (0, -tap))[..., -tap:])
    return total


def lobe(offset: Tensor) -> Tensor:
    """Power in the bin `offset` bins away from a sine of power 1: Hann's main lobe, as cos^4 (within 0.03 of it)."""
    return torch.cos(offset.clamp(-2, 2) * (math.pi / 4)) ** 4


def blurred(rows: Tensor, kernel: Tensor) -> Tensor:
    """rows [B, N, K] averaged over neighbouring frames with a symmetric `kernel` [2R + 1] that sums to 1."""
    radius = len(kernel) // 2
    padded = F.pad(rows.transpose(1, 2), (radius, radius), mode="replicate").transpose(1, 2)
    return sum(float(weight) * padded[:, i : i + rows.shape[1]] for i, weight in enumerate(kernel))  # type: ignore[return-value]


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of `a`, shifted by -3..3 hops, with `b` [TONE_WINDOW]: [7], summing to 1."""
    padded = F.pad(a, (TONE_WINDOW, TONE_WINDOW))
    kernel = torch.stack(
        [
            (padded[TONE_WINDOW - i * SYNTHESIS_HOP : 2 * TONE_WINDOW - i * SYNTHESIS_HOP] * b).sum()
            for i in range(-3, 4)
        ]
    )
    return kernel / kernel.sum()


_WINDOW = torch.hann_window(TONE_WINDOW)
_STEP = F.pad(torch.ones(SYNTHESIS_HOP), ((TONE_WINDOW - SYNTHESIS_HOP) // 2, (TONE_WINDOW - SYNTHESIS_HOP) // 2))
TONE_BLUR = _correlation(_WINDOW, _WINDOW)
NOISE_BLUR = _correlation(_STEP, _WINDOW.square())

_DISTANCE = torch.arange(NOISE_BANDS)[:, None] - torch.arange(1, OSCILLATORS + 1) * (NOISE_WINDOW / TONE_WINDOW)
BINS_TO_BANDS = lobe(_DISTANCE).T.contiguous()
BANDS_TO_BINS = (1 - _DISTANCE.abs()).clamp(min=0)

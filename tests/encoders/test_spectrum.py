"""Spectra: known answers for tones, clicks and periodic signals."""

from __future__ import annotations

import math

import torch

from plaudit.encoders.spectrum import autocorrelation, log_bands, mel_filters, onset_strength, power, semitone_filters

RATE = 16000


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE).unsqueeze(0)


def test_a_full_scale_sine_has_power_of_a_quarter() -> None:
    spectrum = power(tone(1000.0), 1024, 256)
    assert spectrum.shape == (1, 513, RATE // 256)
    middle = spectrum[0, :, 30]
    assert int(middle.argmax()) == 64 and abs(float(middle.max()) - 0.25) < 1e-3


def test_every_semitone_band_responds_to_its_pitch() -> None:
    filters = semitone_filters(RATE, 4096)
    for pitch in range(45, 96, 5):
        bands = log_bands(power(tone(440 * 2 ** ((pitch - 69) / 12)), 4096, 2048), filters)
        assert int(bands[0, :, 3].argmax()) == pitch - 36


def test_no_mel_filter_is_empty() -> None:
    for window, bands in ((512, 40), (1024, 96)):
        filters = mel_filters(RATE, window, bands)
        assert bool((filters.sum(1) > 0).all()) and float(filters.max()) <= 1.0


def test_onsets_mark_the_rise_only() -> None:
    bands = torch.zeros(1, 8, 10)
    bands[0, :, 4:7] = 1.0
    strength = onset_strength(bands, 2)
    assert strength.shape == (1, 2, 10)
    assert strength[0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_autocorrelation_finds_the_period() -> None:
    clicks = torch.zeros(1, 200)
    clicks[0, ::20] = 1.0
    correlation = autocorrelation(clicks, 50)
    assert int(correlation[0, :30].argmax()) + 1 == 20
    assert abs(float(correlation[0, 19]) - 1.0) < 0.05
    assert bool(torch.isfinite(autocorrelation(torch.zeros(1, 40), 100)).all())

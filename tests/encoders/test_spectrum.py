"""Spectra: known answers for tones, clicks and periodic signals."""

from __future__ import annotations

import math

import pytest
import torch

from plaudit.encoders.spectrum import (
    BLOCK_SAMPLES,
    LogBands,
    autocorrelation,
    mel_filters,
    onset_strength,
    power,
    power_blocks,
    semitone_filters,
)

RATE = 16000


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE).unsqueeze(0)


def test_a_full_scale_sine_has_power_of_a_quarter() -> None:
    spectrum = power(tone(1000.0), 1024, 256)
    assert spectrum.shape == (1, RATE // 256, 513)
    middle = spectrum[0, 30]
    assert int(middle.argmax()) == 64 and abs(float(middle.max()) - 0.25) < 1e-3


@pytest.mark.parametrize(("window", "hop", "bins"), [(1024, 320, None), (4096, 1600, 600), (512, 128, 257)])
def test_spectra_are_those_of_the_short_time_fourier_transform(window: int, hop: int, bins: int | None) -> None:
    wave = torch.randn(3, 50_000, generator=torch.Generator().manual_seed(0))
    hann = torch.hann_window(window)
    whole = torch.stft(wave, window, hop, window=hann / hann.sum(), pad_mode="reflect", return_complex=True)
    expected = whole.abs().square().transpose(1, 2)[:, : 50_000 // hop, :bins]
    assert torch.allclose(power(wave, window, hop, bins), expected, rtol=1e-4, atol=1e-9)


def test_long_waves_are_transformed_in_blocks_and_energies_are_those_of_whole_filters() -> None:
    wave = torch.randn(2, BLOCK_SAMPLES, generator=torch.Generator().manual_seed(0))
    filters = mel_filters(RATE, 1024, 96)
    blocks = list(power_blocks(wave, 1024, 320))
    assert len(blocks) > 5 and all(block.numel() <= BLOCK_SAMPLES for block in blocks)
    expected = (torch.cat(blocks, 1) @ filters.T).clamp(min=1e-8).log10().transpose(1, 2)
    assert torch.allclose(LogBands(filters).of_wave(wave, 1024, 320), expected, atol=1e-5)


def test_only_the_bins_that_filters_cover_are_computed() -> None:
    assert LogBands(semitone_filters(RATE, 4096)).bins < 700
    assert LogBands(mel_filters(RATE, 1024, 64)).bins == 513
    assert not LogBands(mel_filters(RATE, 1024, 64)).state_dict()


def test_every_semitone_band_responds_to_its_pitch() -> None:
    semitones = LogBands(semitone_filters(RATE, 4096))
    for pitch in range(45, 96, 5):
        bands = semitones.of_wave(tone(440 * 2 ** ((pitch - 69) / 12)), 4096, 2048)
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

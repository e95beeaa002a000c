"""The mel front-end against librosa and against what a filter bank must be."""

import librosa
import numpy as np
import pytest
import torch

from plaudit.codec.mel import MEL_16K, MEL_44K, MelSettings, log_mel, slaney_filters


@pytest.mark.parametrize("settings", [MEL_16K, MEL_44K])
def test_filters_are_slaneys(settings: MelSettings) -> None:
    expected = librosa.filters.mel(sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.bands)
    np.testing.assert_allclose(slaney_filters(settings).numpy(), expected, atol=1e-6)


def test_a_tone_lands_in_the_band_around_it() -> None:
    time = torch.arange(16000) / 16000
    for hz in (220.0, 1000.0, 3000.0):
        peak = log_mel(torch.sin(2 * torch.pi * hz * time)[None], MEL_16K)[0, :, 30].argmax()
        nearest = slaney_filters(MEL_16K)[:, round(hz * 1024 / 16000)].argmax()
        assert abs(int(peak) - int(nearest)) <= 1


def test_silence_is_the_floor_and_overload_is_clamped() -> None:
    silence = log_mel(torch.zeros(1, 4096), MEL_16K)
    assert silence.shape == (1, 80, 16)
    assert bool((silence == -5).all() | (silence < -4.4).all())
    square = torch.sign(torch.sin(torch.arange(4096) * 0.1))[None]
    torch.testing.assert_close(log_mel(5 * square, MEL_16K), log_mel(square, MEL_16K))

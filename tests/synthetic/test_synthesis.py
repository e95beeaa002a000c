"""What is played is what the controls say."""

import math

import pytest
import torch

from plaudit.synthetic.codec import (
    NOISE_BANDS,
    OSCILLATORS,
    Controls,
    calm_noise,
    magnitude,
    noise_bands,
    oscillators,
    phases,
    play,
)
from tools.synthetic.expected import expected_distance, lobe

SILENT = -20.0


def silent_tones(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((1, frames, OSCILLATORS), SILENT), torch.zeros(1, frames, OSCILLATORS)


@pytest.mark.parametrize(("oscillator", "bend"), [(2, 0.4), (27, 0.3), (100, -0.8), (300, 0.0)])
def test_an_oscillator_has_its_pitch_and_loudness(oscillator: int, bend: float) -> None:
    loudness, bends = silent_tones(96)
    loudness[..., oscillator] = math.log(0.2)
    bends[..., oscillator] = bend
    wave = oscillators(loudness, phases(bends))[0]
    middle = wave[4096:20480]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle)), 4 * len(middle)).abs()
    hz = float(spectrum.argmax()) * 16000 / (4 * len(middle))
    assert hz == pytest.approx((oscillator + 1 + bend) * 15.625, abs=0.3)
    softer = float(lobe(torch.tensor(bend)).sqrt())
    assert float(middle.square().mean().sqrt()) == pytest.approx(0.2 * softer / math.sqrt(2), rel=0.05)


def test_noise_has_its_loudness_and_only_in_its_band() -> None:
    wave = noise_bands(torch.full((1, 512, NOISE_BANDS), math.log(0.1)))
    assert wave.shape == (1, 32768)
    assert float(wave.std()) == pytest.approx(0.1, rel=0.03)
    high = torch.full((1, 512, NOISE_BANDS), SILENT)
    high[..., 64:] = math.log(0.1)
    bins = magnitude(noise_bands(high), 1024, 256)[0].square().mean(0)
    assert float(bins[:230].mean()) < 1e-4 * float(bins[280:].mean())


def test_playing_is_deterministic_and_the_same_in_any_batch() -> None:
    tones = torch.randn(2, 3, 8, OSCILLATORS, generator=torch.Generator().manual_seed(0))
    controls = Controls(tones[0] - 6, tones[1].tanh(), torch.zeros(3, 32, NOISE_BANDS) - 6)
    alone = Controls(controls.loudness[1:2], controls.bend[1:2], controls.noise[1:2])
    wave = play(controls)
    torch.testing.assert_close(play(controls), wave, rtol=0, atol=0)
    torch.testing.assert_close(play(alone)[0], wave[1], rtol=0, atol=1e-6)


def test_the_lobe_is_hanns() -> None:
    offsets = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.7])
    time = torch.arange(1024) - 512
    made = [float((torch.cos(2 * torch.pi * o / 1024 * time) * torch.hann_window(1024)).sum() / 512) for o in offsets]
    torch.testing.assert_close(lobe(offsets).sqrt(), torch.tensor(made).abs(), atol=0.03, rtol=0)


def test_expected_spectra_are_nearest_at_the_controls_that_were_played() -> None:
    loudness, bends = silent_tones(64)
    loudness[..., 27], bends[..., 27] = -2, 0.3
    loudness[:, 30:, 200] = -2
    noise = torch.full((1, 256, NOISE_BANDS), -9.0)
    noise[:, 120:140] = -4
    wave = play(Controls(loudness, bends, noise))
    true = float(expected_distance(Controls(loudness, bends, noise), wave))
    wrong_pitch, wrong_loudness = bends.clone(), loudness.clone()
    wrong_pitch[..., 27] = -0.6
    wrong_loudness[..., 27] += 0.7
    assert true < float(expected_distance(Controls(loudness, wrong_pitch, noise), wave))
    assert true < float(expected_distance(Controls(wrong_loudness, bends, noise), wave))
    assert true < float(expected_distance(Controls(loudness, bends, noise + 1), wave))
    assert true < float(expected_distance(Controls(loudness, bends, noise - 1.5), wave))


def test_calm_noise_is_white_and_its_spectra_are_evener_than_gaussian_noise() -> None:
    noise = calm_noise(1 << 15)[None]
    gaussian = torch.randn(1, 1 << 15, generator=torch.Generator().manual_seed(1))
    assert float(noise.square().mean()) == pytest.approx(1, rel=1e-3)
    bands = magnitude(noise, 1024, 256)[0, :, 1:].square().mean(0).unflatten(0, (16, 32)).mean(1)
    assert float(bands.max() / bands.min()) < 1.3
    for n_fft in (512, 1024, 2048):
        calm, wild = (magnitude(wave, n_fft, n_fft // 4).log().std() for wave in (noise, gaussian))
        assert float(calm) < 0.7 * float(wild)


def test_noise_cached_by_inference_allows_gradients() -> None:
    with torch.inference_mode():
        noise_bands(torch.zeros(1, 4, NOISE_BANDS))
    loudness = torch.zeros(1, 4, NOISE_BANDS, requires_grad=True)
    noise_bands(loudness).square().sum().backward()
    assert loudness.grad is not None and float(loudness.grad.abs().sum()) > 0

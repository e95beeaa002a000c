"""The STFT distance and the divergence against what they must be."""

import math

import pytest
import torch

from plaudit.synthetic.codec import magnitude
from tools.synthetic.losses import gaussian_divergence, stft_distance


def noise(seed: int, length: int = 8192) -> torch.Tensor:
    return 0.1 * torch.randn(2, length, generator=torch.Generator().manual_seed(seed))


def test_a_full_scale_sine_has_magnitude_one() -> None:
    wave = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000))[None]
    for n_fft in (512, 1024, 2048):
        assert float(magnitude(wave, n_fft, 256).amax()) == pytest.approx(1, rel=1e-3)


def test_equal_waves_have_no_distance() -> None:
    assert float(stft_distance(noise(0), noise(0)).max()) < 1e-6


@pytest.mark.parametrize("gain", [0.1, 0.5, 0.9])
def test_softer_by_a_factor_lies_within_its_closed_form(gain: float) -> None:
    # Convergence is 1 - gain; the logarithm differs by -log gain where the floor is far below.
    distance = stft_distance(gain * noise(1), noise(1))
    assert bool((distance > 1 - gain).all())
    assert bool((distance < 1 - gain - math.log(gain) + 1e-4).all())


def test_phase_does_not_matter_and_pitch_does() -> None:
    time = torch.arange(16000) / 16000
    a = 0.3 * torch.sin(2 * torch.pi * 110 * time)[None]
    shifted = 0.3 * torch.sin(2 * torch.pi * 110 * time + 1)[None]
    semitone = 0.3 * torch.sin(2 * torch.pi * 116.54 * time)[None]
    assert float(stft_distance(shifted, a)) < 0.3 * float(stft_distance(semitone, a))


def test_silence_is_finite_and_has_a_gradient() -> None:
    estimate = torch.zeros(1, 4096, requires_grad=True)
    distance = stft_distance(estimate, torch.zeros(1, 4096))
    distance.sum().backward()
    assert float(distance.detach()) < 1e-3
    assert estimate.grad is not None and bool(estimate.grad.isfinite().all())
    loud = stft_distance(noise(2, 4096)[:1], torch.zeros(1, 4096))
    assert bool(loud.isfinite().all()) and float(loud) > 1


def test_one_value_per_clip() -> None:
    target = noise(3)
    estimate = target.clone()
    estimate[1] *= 0.5
    distance = stft_distance(estimate, target)
    assert float(distance[0]) < 1e-6 < float(distance[1])


def test_divergence_is_zero_only_for_the_standard_gaussian() -> None:
    zeros, ones = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    assert float(gaussian_divergence(zeros, ones)) == 0
    assert float(gaussian_divergence(ones, ones)) == pytest.approx(0.5)
    assert float(gaussian_divergence(zeros, 2 * ones)) == pytest.approx(0.5 * (4 - 1 - 2 * math.log(2)))

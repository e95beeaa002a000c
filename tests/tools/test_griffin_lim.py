"""The baseline is a fair one: it does what Griffin-Lim should."""

import torch

from plaudit.codec.mel import MEL_16K, mel_energy, slaney_filters, spectrum
from tools.synthetic.griffin_lim import from_true_mel, griffin_lim, magnitudes_from_mel
from tools.synthetic.losses import stft_distance


def chord(length: int = 16384) -> torch.Tensor:
    time = torch.arange(length) / 16000
    return sum(0.15 * torch.sin(2 * torch.pi * hz * time) for hz in (220.0, 277.2, 329.6))[None]  # type: ignore[index]


def test_iterations_bring_the_spectrum_nearer() -> None:
    wave = chord()
    magnitudes = spectrum(wave, 1024, 256).abs()
    rebuilt = [spectrum(griffin_lim(magnitudes, 1024, 256, iterations), 1024, 256).abs() for iterations in (1, 8, 32)]
    errors = [float((each - magnitudes).norm()) for each in rebuilt]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.15 * float(magnitudes.norm())


def test_magnitudes_explain_the_mel_they_came_from() -> None:
    energy = mel_energy(chord(), MEL_16K)
    magnitudes = magnitudes_from_mel(energy, MEL_16K)
    assert bool((magnitudes >= 0).all())
    again = (magnitudes @ slaney_filters(MEL_16K).T).transpose(1, 2)
    assert float((again - energy).norm() / energy.norm()) < 0.02


def test_from_true_mel_keeps_length_and_sounds_alike() -> None:
    wave = chord()
    rebuilt = from_true_mel(wave, MEL_16K)
    assert rebuilt.shape == wave.shape
    assert float(stft_distance(rebuilt, wave)) < float(stft_distance(torch.zeros_like(wave), wave))

"""The statistics embedder: each flaw moves the values that are there for it."""

from __future__ import annotations

import pytest
import torch

from plaudit.errors import AudioError
from plaudit.synthetic.composer import compose
from plaudit.synthetic.flaws import FLAWS, Flaws, render_flawed
from plaudit.synthetic.statistics import StatisticsEmbedder, amplitude, level_features, load_statistics, tuning_features


@pytest.fixture(scope="module")
def embedder() -> StatisticsEmbedder:
    return load_statistics()


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return waves({})


def waves(severity: dict[str, float], count: int = 6) -> torch.Tensor:
    pieces = [render_flawed(compose(seed, 5.0), Flaws(severity), seed) for seed in range(count)]
    return torch.stack([torch.from_numpy(wave) for wave in pieces])


def test_standardized_and_finite(embedder: StatisticsEmbedder, clean: torch.Tensor) -> None:
    values = embedder.audio(clean)
    assert values.shape == (6, embedder.dim)
    assert bool(torch.isfinite(values).all()) and float(values.abs().max()) <= 6.0
    assert 0.3 < float(values.std()) < 2.0


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_changes_the_statistics(embedder: StatisticsEmbedder, clean: torch.Tensor, flaw: str) -> None:
    moved = (embedder.audio(waves({flaw: 1.0})) - embedder.audio(clean)).abs()
    assert float(moved.mean(0).max()) > 1.0


def test_gain_and_batch_do_not_matter(embedder: StatisticsEmbedder, clean: torch.Tensor) -> None:
    values = embedder.audio(clean)
    assert torch.allclose(embedder.audio(clean[2:3]), values[2:3], atol=1e-2)
    assert float((embedder.audio(0.3 * clean) - values).abs().mean()) < 0.02


def test_clipping_flattens_the_amplitudes(clean: torch.Tensor) -> None:
    held = 8  # after the eight shares above the thresholds: samples that stay put above 30 % of the peak
    assert bool((amplitude(waves({"clipped": 0.8}))[:, held] > amplitude(clean)[:, held] + 0.5).all())


def test_dropouts_are_gaps(clean: torch.Tensor) -> None:
    deepest = 0
    dropped = level_features(waves({"dropouts": 0.8}), 16000)[:, deepest]
    assert float(dropped.mean()) < float(level_features(clean, 16000)[:, deepest].mean()) - 1.0


def test_silence_that_fills_up_a_clip_is_no_gap(clean: torch.Tensor) -> None:
    padded = torch.nn.functional.pad(clean[:, :-400], (0, 400))
    assert torch.allclose(level_features(padded, 16000), level_features(clean, 16000), atol=0.05)


def test_tuning_of_a_tone() -> None:
    time = torch.arange(32000) / 16000
    in_tune, sharp = (torch.sin(2 * torch.pi * f * time).unsqueeze(0) for f in (440.0, 440.0 * 2 ** (25 / 1200)))
    octave = slice(28, 42)  # 440 to 880 Hz is the third register, of 14 values each
    for wave, cosine, sine in ((in_tune, 1.0, 0.0), (sharp, 0.0, 1.0)):
        values = tuning_features(wave, 16000)[0, octave]
        assert float(values[10]) == pytest.approx(cosine, abs=0.1)
        assert float(values[11]) == pytest.approx(sine, abs=0.1)


@pytest.mark.parametrize("samples", [16000, 50000, 160000])
def test_lengths_and_silence(embedder: StatisticsEmbedder, samples: int) -> None:
    assert bool(torch.isfinite(embedder.audio(torch.zeros(2, samples))).all())


def test_gradient_reaches_the_waveform(embedder: StatisticsEmbedder, clean: torch.Tensor) -> None:
    wave = clean[:1].clone().requires_grad_()
    embedder.audio(wave).square().mean().backward()
    assert wave.grad is not None and bool(torch.isfinite(wave.grad).all())
    assert float(wave.grad.abs().max()) > 0


@pytest.mark.parametrize("wave", [torch.zeros(0, 32000), torch.zeros(1, 100), torch.full((1, 32000), torch.nan)])
def test_bad_audio(embedder: StatisticsEmbedder, wave: torch.Tensor) -> None:
    with pytest.raises(AudioError):
        embedder.audio(wave)


def test_gradients_are_finite_where_a_band_has_no_onset(embedder: StatisticsEmbedder) -> None:
    at = torch.arange(32000) / 16000
    wave = (0.3 * torch.sin(2 * torch.pi * 300 * at))[None].requires_grad_()
    embedder.audio(wave).sum().backward()
    assert wave.grad is not None and torch.isfinite(wave.grad).all()

"""Where windows, parts of the decoder and the ends of a loop meet, music of the shipped model is as anywhere else.

Three measures of what a seam does to sound, at a sample: the step in level, the change of the spectrum, and the jump
of the waveform. Their means over the seams of several pieces are compared with means over as many random places of the
same pieces; for each measure, clips that are simply put one after the other show that it detects a seam.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit import loading
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import SamplingSettings
from plaudit.synthetic.codec import LATENTS_AT_ONCE, magnitude

PROMPTS = ["calm ambient pads with slow piano", "upbeat folk guitar in a major key", "fast dance music with drums"]
SEEDS = [11, 12, 13]
NEAR = 512
"""Samples on either side of a seam in which it may be audible; 32 ms."""


def level_step(wave: Tensor) -> Tensor:
    """How many dB the level of the next 64 ms differs from that of the last, at every 128th sample of a wave [T]."""
    level = 10 * wave.unfold(0, 1024, 128).square().mean(1).clamp(min=1e-8).log10()
    return torch.nn.functional.pad((level[8:] - level[:-8]).abs(), (8, 8))[:, None][: len(wave) // 128, 0]


def spectral_change(wave: Tensor) -> Tensor:
    """Mean distance in dB between the spectra of a frame of 16 ms and the one before the last, every 128 samples."""
    spectrum = 20 * magnitude(wave[None], 512, 128)[0].clamp(min=1e-3).log10()
    return torch.nn.functional.pad((spectrum[2:] - spectrum[:-2]).abs().mean(1), (1, 1))


def jump(wave: Tensor) -> Tensor:
    """The greatest third difference in 128 samples, in dB over the mean of those of half a second."""
    rough = wave.diff(n=3).abs()
    peaks = rough[: len(rough) // 128 * 128].unflatten(0, (-1, 128)).amax(1)
    usual = torch.nn.functional.avg_pool1d(peaks[None], 63, 1, 31, count_include_pad=False)[0]
    return 20 * (peaks.clamp(min=1e-6) / usual.clamp(min=1e-6)).log10()


Measure = Callable[[Tensor], Tensor]
MEASURES = (level_step, spectral_change, jump)


def surprise(pieces: list[Tensor], seams: list[int], measure: Measure) -> float:
    """The share of 2000 draws of random places whose mean of a measure is at least that at the seams of the pieces."""
    near, everywhere = NEAR // 128, []
    for piece in pieces:
        values = measure(piece)
        everywhere.append(torch.nn.functional.max_pool1d(values[None], 2 * near + 1, 1, near)[0].numpy())
    result = np.mean([values[seam // 128] for values in everywhere for seam in seams])
    random = np.random.default_rng(0)
    draws = [
        np.mean([values[random.integers(4 * near, len(values) - 4 * near, len(seams))] for values in everywhere])
        for _ in range(2000)
    ]
    return float(np.mean(np.array(draws) >= result))


@pytest.fixture(scope="module")
def music() -> TextToMusic:
    return loading.load("synthetic", "cpu")


def settings_of(music: TextToMusic, **piece: object) -> SamplingSettings:
    return music.config.sampling.changed(steps=5, precision="no", piece=piece)


@pytest.fixture(scope="module")
def clips(music: TextToMusic) -> Tensor:
    """Plain clips of the model's own length."""
    return music.generate(PROMPTS, SEEDS, settings_of(music))


@pytest.fixture(scope="module", params=[3.0, 8.0])
def loops(music: TextToMusic, request: pytest.FixtureRequest) -> Tensor:
    return music.generate(PROMPTS, SEEDS, settings_of(music, seconds=request.param, loop=True))


@pytest.fixture(scope="module")
def long_pieces(music: TextToMusic) -> list[Tensor]:
    return list(music.generate(PROMPTS, SEEDS, settings_of(music, seconds=30.0)))


@pytest.mark.parametrize("measure", MEASURES)
def test_windows_and_parts_of_a_long_piece_meet_without_a_seam(
    music: TextToMusic, long_pieces: list[Tensor], measure: Measure
) -> None:
    windows = music.plan(settings_of(music, seconds=30.0)).windows
    assert windows is not None and len(windows) > 3
    starts = windows.index[:, 0] * music.codec.hop
    ends = starts + windows.length * music.codec.hop
    parts = [LATENTS_AT_ONCE * music.codec.hop * i for i in (1, 2)]
    assert surprise(long_pieces, sorted({*starts[1:].tolist(), *ends[:-1].tolist(), *parts}), measure) > 0.01


@pytest.mark.parametrize("measure", [spectral_change, jump])
def test_concatenated_clips_have_a_measurable_seam(clips: Tensor, measure: Measure) -> None:
    pairs = [torch.cat([first, second]) for first in clips for second in clips if first is not second]
    assert surprise(pairs, [clips.shape[1]], measure) < 0.01


def test_a_step_in_level_is_measured(clips: Tensor) -> None:
    half = clips.shape[1] // 2
    stepped = [torch.cat([clip[:half], 0.4 * clip[half:]]) for clip in clips]
    assert surprise(stepped, [half], level_step) < 0.01


@pytest.mark.parametrize("measure", MEASURES)
def test_the_end_of_a_loop_joins_its_start_without_a_seam(loops: Tensor, measure: Measure) -> None:
    assert surprise([loop.repeat(2) for loop in loops], [loops.shape[1]], measure) > 0.01


def test_a_plain_clip_is_no_loop(clips: Tensor) -> None:
    assert surprise([clip.repeat(2) for clip in clips], [clips.shape[1]], spectral_change) < 0.01

"""Loudness and true peak hold in the files themselves, by meters that are not the package's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loudness import TARGET, Outcome, generated, outcome, peak, synthetic
from plaudit.audio import read_audio, resample
from plaudit.audio_format import AudioFormat, decode_audio
from plaudit.generate.loudness import integrated_loudness
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import PostSettings

REAL = Path(os.environ.get("PLAUDIT_REAL_DIR", Path(__file__).parents[3] / "shared" / "real"))
RATE = 16000


UNREACHABLE = ("one click", "clicks every", "full-scale constant", "noise 2")
"""Sounds that hold too little for the target under any ceiling: single samples, and what lies below hearing."""


def check(result: Outcome, wave: np.ndarray, rate: int) -> None:
    """Target and ceiling hold, or there is a reason, which the notice gives."""
    if not result.on_target:
        soundless = not np.isfinite(integrated_loudness(wave - wave.mean(), rate))
        assert (soundless or result.name.startswith(UNREACHABLE)) and result.notice, result


def music(seed: int = 0, seconds: float = 2.0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    hits = np.convolve(dice.random(round(seconds * RATE)) < 4 / RATE, np.exp(-np.arange(400) / 60))
    return (dice.standard_normal(round(seconds * RATE)) * (0.02 + hits[: round(seconds * RATE)])).astype(np.float32)


def test_a_sample_of_the_sweep() -> None:
    for number, (name, wave) in enumerate(synthetic(RATE, 1.5)):
        if number % 16 == 0:
            check(outcome(name, wave.astype(np.float32), RATE, (AudioFormat(),)), wave, RATE)


@pytest.mark.skipif(not REAL.is_dir(), reason="the 80 real clips are not here; set PLAUDIT_REAL_DIR")
def test_a_sample_of_the_real_clips() -> None:
    for path in sorted((REAL / "audio").iterdir())[7::40]:
        wave, rate = read_audio(path)
        assert outcome(path.name, resample(wave, rate, RATE), RATE, (AudioFormat(),)).on_target


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the 80 real clips are not here; set PLAUDIT_REAL_DIR")
def test_every_real_clip() -> None:
    paths = sorted((REAL / "audio").iterdir())
    assert len(paths) == 80
    assert [path.name for path in paths if not outcome(path.name, *read_audio(path)).on_target] == []


@pytest.mark.slow
def test_two_hundred_synthetic_clips_and_the_synthetic_models() -> None:
    clips = [(name, wave.astype(np.float32)) for name, wave in synthetic()]
    assert len(clips) == 200
    for name, wave in clips:
        check(outcome(name, wave, 44100), wave, 44100)
    for clip in generated():
        assert outcome(*clip).on_target


def test_full_scale_square_is_reached_and_a_click_says_why_not() -> None:
    clips = {name: wave.astype(np.float32) for name, wave in synthetic(RATE, 1.5)}
    square = next(name for name in clips if "square" in name)
    assert outcome(square, clips[square], RATE).on_target
    click = outcome("click", clips["one click of 1"], RATE)
    assert click.notice is not None and "no gain reaches -16.5" in click.notice and click.true_peak <= -1


@pytest.mark.parametrize("container", ["mp3", "ogg"])
def test_what_is_decoded_from_lossy_files_keeps_to_the_ceiling(container: str) -> None:
    postprocessor = PostProcessor(PostSettings(), AudioFormat.model_validate({"container": container, "quality": 0.3}))
    for clip in postprocessor.encode([music(seed) for seed in range(3)], RATE, [{"seed": seed} for seed in range(3)]):
        decoded = decode_audio(clip.content).astype(np.float64)
        assert peak(decoded) <= -1 and abs(integrated_loudness(decoded, RATE) - TARGET) <= 0.1
        assert clip.measured["true_peak"] >= peak(decoded) - 0.05 and clip.measured["notice"] is None


def test_a_file_is_the_same_each_time_and_resampled_first() -> None:
    postprocessor = PostProcessor.load(PostSettings(rate=44100, seconds=0.6), AudioFormat())
    tags = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 2}]
    first, second = (postprocessor.encode([0.1 * music(seconds=0.7)] * 2, RATE, tags) for _ in range(2))
    assert [clip.content for clip in first] == [clip.content for clip in second]
    assert first[0].rate == 44100 and len(decode_audio(first[0].content)) == 26460
    one, other = (decode_audio(clip.content) for clip in first)
    assert 0 < np.abs(one - other).max() < 4 / 2**15  # only the dither is another


def test_an_offset_is_taken_off() -> None:
    wave = 0.2 * music() + 0.2
    [clip] = PostProcessor(PostSettings(loudness=None)).encode([wave.astype(np.float32)], RATE, [{}])
    assert abs(decode_audio(clip.content).mean()) < 1e-3
    without = PostProcessor(PostSettings(loudness=None, remove_dc=False))
    [kept] = without.encode([wave.astype(np.float32)], RATE, [{}])
    assert decode_audio(kept.content).mean() == pytest.approx(0.2, abs=0.01)

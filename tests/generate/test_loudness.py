"""The loudness target and the true-peak ceiling hold together, for any sound that has a loudness."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly, square

from plaudit.audio import read_audio, resample
from plaudit.errors import AudioError, RecipeError
from plaudit.generate.loudness import integrated_loudness, normalize_loudness, true_peak
from plaudit.generate.postprocess import postprocess
from plaudit.generate.settings import PostSettings
from plaudit.settings import validated

RATE = 16000
REAL = Path(os.environ.get("PLAUDIT_REAL_DIR", Path(__file__).parents[3] / "shared" / "real"))


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE, phase: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate + phase).astype(np.float32)


def noise(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def as_16_bits(wave: np.ndarray) -> np.ndarray:
    assert np.abs(wave).max() <= 1
    return np.round(wave * 32767) / 32767


def assert_normal(wave: np.ndarray, rate: int, target: float, ceiling: float) -> None:
    done, result = normalize_loudness(wave, rate, target, ceiling)
    assert done.shape == wave.shape and done.dtype == np.float32 and result.notice is None
    written = as_16_bits(done)
    assert abs(integrated_loudness(written, rate) - target) <= 0.1
    assert true_peak(written) <= ceiling
    assert abs(result.after - integrated_loudness(done, rate)) < 0.01
    assert abs(result.true_peak - true_peak(done)) < 0.01


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_full_scale_tone_of_997_hz_has_the_loudness_of_the_standard(rate: int) -> None:
    assert integrated_loudness(tone(997, 3, rate), rate) == pytest.approx(-3.01, abs=0.1)


def test_silence_between_is_gated_out() -> None:
    wave = tone(997, 4)
    assert integrated_loudness(np.pad(wave, (0, 4 * RATE)), RATE) == pytest.approx(-3.01, abs=0.3)


def test_true_peak_sees_between_the_samples() -> None:
    hidden = tone(RATE / 4, phase=np.pi / 4)  # every sample is at 0.707 of the wave's peak
    assert np.abs(hidden).max() == pytest.approx(0.7071, abs=1e-3)
    assert true_peak(hidden) == pytest.approx(0.0, abs=0.15)
    assert true_peak(np.zeros(100, np.float32)) == -np.inf
    assert true_peak(hidden / 2) == pytest.approx(true_peak(hidden) - 6.02, abs=0.01)


@pytest.mark.parametrize("target", [-30.0, -16.5, -14.0])
@pytest.mark.parametrize(
    "wave",
    [
        tone(60),
        tone(440) * 0.01,
        tone(5000),
        noise() * 3,
        square(2 * np.pi * 110 * np.arange(2 * RATE) / RATE).astype(np.float32),
        noise() * (np.arange(2 * RATE) % 4000 < 1500) * 0.1,
    ],
    ids=["bass", "quiet", "high", "noise", "square", "bursts"],
)
def test_target_and_ceiling_hold(wave: np.ndarray, target: float) -> None:
    assert_normal(wave, RATE, target, -1.0)


@given(
    seed=st.integers(0, 1000),
    level=st.floats(-50, 20),
    crest=st.floats(0.0, 3.0),
    target=st.floats(-30, -14),
    ceiling=st.floats(-3, 0),
)
@settings(max_examples=12, deadline=None)
def test_any_music_like_mix(seed: int, level: float, crest: float, target: float, ceiling: float) -> None:
    dice = np.random.default_rng(seed)
    wave = sum(dice.random() * tone(hertz, phase=dice.random()) for hertz in dice.uniform(50, 4000, 4))
    hits = dice.random(2 * RATE) > 0.9995
    wave = wave + crest * np.convolve(hits * dice.choice([-1, 1], 2 * RATE), np.exp(-np.arange(200) / 30))[: 2 * RATE]
    assert_normal((wave * 10 ** (level / 20)).astype(np.float32), RATE, target, ceiling)


def test_below_the_ceiling_it_is_a_gain_and_nothing_else() -> None:
    wave = tone(440) * 0.05
    done, result = normalize_loudness(wave, RATE)
    assert np.allclose(done, wave * 10 ** (result.gain_db / 20), atol=1e-6)


def test_the_limiter_leaves_no_click() -> None:
    """A limited tone has its energy at the tone: what the moving gain adds stays under -23 dB."""
    wave = tone(220, 4)
    wave[2 * RATE : 2 * RATE + 40] *= 6
    done, _ = normalize_loudness(wave * 0.1, RATE, -6.0)
    spectrum = np.abs(np.fft.rfft(done[RATE // 2 : -RATE // 2] * np.hanning(3 * RATE))) ** 2
    near = slice(3 * 200, 3 * 240)  # bins are 1/3 Hz
    assert (spectrum.sum() - spectrum[near].sum()) / spectrum.sum() < 5e-3


def test_a_finer_meter_agrees() -> None:
    done, _ = normalize_loudness(noise() * (1 + 4 * (np.arange(2 * RATE) % 1600 < 30)), RATE)
    fine = resample_poly(done.astype(np.float64), 16, 1, window=("kaiser", 12.0))
    assert 20 * np.log10(np.abs(fine).max()) < -1.0 + 0.6  # what BS.1770 allows 4 times oversampling to miss


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (tone(440) * 1e-5, "too quiet"),
        (tone(440, 0.3), "shorter than 0.4 s"),
        (np.zeros(0, np.float32), "shorter than 0.4 s"),
    ],
)
def test_what_has_no_loudness_is_left_alone(wave: np.ndarray, reason: str) -> None:
    done, result = normalize_loudness(wave, RATE)
    assert np.array_equal(done, wave) and result.after == -np.inf and result.gain_db == 0
    assert result.notice is not None and reason in result.notice


def test_a_lone_click_is_left_alone_but_for_the_ceiling_and_the_notice_says_so() -> None:
    click = np.zeros(4 * RATE, np.float32)
    click[2 * RATE] = 0.5
    done, result = normalize_loudness(click, RATE)
    assert np.array_equal(done, click) and result.gain_db == 0
    assert result.notice is not None and "no gain reaches -16.5" in result.notice
    done, result = normalize_loudness(2 * click, RATE)
    assert -1.2 < true_peak(as_16_bits(done)) <= -1 and -1.2 < result.gain_db < -0.9
    assert result.after == pytest.approx(integrated_loudness(done, RATE), abs=0.01)


def test_postprocess_gives_length_edges_and_loudness() -> None:
    [(wave, measured)] = postprocess([noise(3)], RATE, PostSettings(seconds=4.0))
    assert len(wave) == 4 * RATE and not wave[3 * RATE :].any()
    assert wave[0] == pytest.approx(0, abs=1e-3) and wave[3 * RATE - 1] == pytest.approx(0, abs=1e-3)
    assert measured["loudness"] == pytest.approx(-16.5, abs=0.1) and measured["true_peak"] <= -1
    assert measured["seconds"] == 4.0 and measured["notice"] is None
    [(cut, _)] = postprocess([noise(3)], RATE, PostSettings(seconds=1.0))
    assert len(cut) == RATE and cut[-1] == pytest.approx(0, abs=1e-3)


def test_postprocess_can_leave_the_loudness_alone() -> None:
    wave = noise(1) * 0.1
    [(done, measured)] = postprocess([wave], RATE, PostSettings(loudness=None, fade_ms=0, remove_dc=False))
    assert np.array_equal(done, wave)
    assert (
        measured["loudness"] == measured["loudness_before"] == pytest.approx(integrated_loudness(wave, RATE), abs=0.001)
    )


def test_postprocess_of_silence_is_plain_json() -> None:
    [(_, measured)] = postprocess([np.zeros(RATE, np.float32)], RATE, PostSettings())
    assert measured["loudness"] is None and measured["true_peak"] is None and "silent" in measured["notice"]


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])], ids=["none", "2d", "nan"])
def test_postprocess_refuses(wave: np.ndarray) -> None:
    with pytest.raises(AudioError):
        postprocess([wave], RATE, PostSettings())


@pytest.mark.skipif(not REAL.is_dir(), reason="the 80 real clips are not here; set PLAUDIT_REAL_DIR")
def test_real_clips() -> None:
    for path in sorted((REAL / "audio").iterdir())[::20]:
        wave, rate = read_audio(path)
        assert_normal(resample(wave, rate, RATE), RATE, -16.5, -1.0)


def peaky(level: float, seconds: float = 2.0) -> np.ndarray:
    """A tone with a click: the quieter the tone, the more the click is in the way of the loudness."""
    wave = level * tone(440, seconds)
    wave[RATE // 2] = 0.5
    return wave


def test_the_published_chain_is_a_gain_that_folds_peaks_over_99_to_95() -> None:
    published = PostSettings(chain="published")
    for wave in (0.05 * tone(440), 0.9 * tone(440), peaky(0.05), noise() / 5):
        [(done, measured)] = postprocess([wave], RATE, published)
        gained = wave.astype(np.float64) * 10 ** ((-16.5 - integrated_loudness(wave, RATE)) / 20)
        highest = np.abs(gained).max()
        expected = gained * 0.95 / highest if highest > 0.99 else gained
        np.testing.assert_allclose(done, expected, atol=1e-6)
        assert measured["loudness"] == pytest.approx(integrated_loudness(expected, RATE), abs=1e-2)
        assert (measured["notice"] is None) == (abs(measured["loudness"] + 16.5) <= 0.1)
    [(folded, missed)] = postprocess([peaky(0.05)], RATE, published)
    assert np.abs(folded).max() == pytest.approx(0.95, abs=1e-6)
    assert missed["loudness"] < -20 and "peaks scaled to 0.95" in missed["notice"]
    [(_, ours)] = postprocess([peaky(0.05)], RATE, PostSettings())
    assert abs(ours["loudness"] + 16.5) <= 0.1 and ours["notice"] is None


def test_the_published_chain_keeps_edges_offset_and_what_has_no_loudness() -> None:
    published = PostSettings(chain="published", seconds=1.5)
    wave = (0.2 * tone(440) + 0.1).astype(np.float32)
    [(done, _)] = postprocess([wave], RATE, published)
    assert len(done) == 1.5 * RATE
    ratio = done / wave[: len(done)]
    assert np.ptp(ratio) < 1e-5  # one gain: no fade, and the offset is left
    [(padded, _)] = postprocess([wave[:RATE]], RATE, published)
    assert len(padded) == 1.5 * RATE and not padded[RATE:].any()
    for quiet in (np.zeros(RATE, dtype=np.float32), 1e-6 * tone(440)):
        [(same, measured)] = postprocess([quiet], RATE, PostSettings(chain="published"))
        assert np.array_equal(same, quiet) and "left as it was" in measured["notice"]


@pytest.mark.parametrize(
    "values, key",
    [
        ({"ceiling": -2.0}, "ceiling"),
        ({"fade_ms": 5.0}, "fade_ms"),
        ({"remove_dc": False}, "remove_dc"),
        ({"separate": {"stop_below": -30.0}}, "separate.stop_below"),
    ],
)
def test_the_published_chain_refuses_what_it_does_not_use(values: dict[str, object], key: str) -> None:
    with pytest.raises(RecipeError, match=f"chain published has no {key}"):
        validated(PostSettings, {"chain": "published", **values}, "post")


@pytest.mark.skipif(not REAL.is_dir(), reason="the 80 real clips are not here; set PLAUDIT_REAL_DIR")
def test_the_published_chain_misses_the_loudness_of_real_clips_and_ours_does_not() -> None:
    clips = [read_audio(path) for path in sorted((REAL / "audio").iterdir())[::20]]
    missed = {}
    for chain in ("published", "limiter"):
        done = [postprocess([w], rate, PostSettings.model_validate({"chain": chain}))[0][1] for w, rate in clips]
        missed[chain] = sum(abs(measured["loudness"] + 16.5) > 0.1 for measured in done)
    assert missed["published"] > 0 and missed["limiter"] == 0

"""Clips of a test are matched in length, rate and loudness, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import AudioError
from plaudit.generate.loudness import integrated_loudness, true_peak
from plaudit.studio.listening.stimuli import at_loudness, check_peaks, common_length, common_rate, degraded

RATE = 16_000


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(level=st.floats(0.003, 0.3), target=st.floats(-40, -23), seed=st.integers(0, 99))
def test_a_clip_is_at_the_target_by_a_gain_alone(level: float, target: float, seed: int) -> None:
    wave = noise(1.5, level, seed)
    clip = at_loudness("x", wave, RATE, target)
    assert integrated_loudness(clip.wave, RATE) == pytest.approx(target, abs=0.01)
    assert true_peak(clip.wave) == pytest.approx(clip.true_peak, abs=0.01)
    assert np.corrcoef(clip.wave, wave)[0, 1] > 0.999999


def test_a_clip_with_high_peaks_is_refused_with_a_loudness_that_fits() -> None:
    click = noise(2, 0.001)
    click[5_000] = 0.9

    def check(target: float) -> None:
        waves = {"steady": noise(2, 0.1), "click": click}
        check_peaks({name: at_loudness(name, wave, RATE, target).true_peak for name, wave in waves.items()}, target)

    with pytest.raises(AudioError, match=r"^the loudness of click can't be matched at -23 LUFS: peaks would") as error:
        check(-23)
    fits = float(str(error.value).split("set loudness to ")[1].split()[0])
    check(fits)
    with pytest.raises(AudioError, match="can't be matched"):
        check(fits + 0.2)


@pytest.mark.parametrize(
    ("wave", "why"), [(np.zeros(RATE * 2, np.float32), "silent or too quiet"), (noise(0.2, 0.1), "too short")]
)
def test_what_has_no_loudness_is_refused(wave: np.ndarray, why: str) -> None:
    with pytest.raises(AudioError, match=f"the loudness of x can't be matched: it is {why}"):
        at_loudness("x", wave, RATE)


def test_clips_are_cut_to_the_shortest_with_one_fade() -> None:
    waves = {"long": np.ones(3 * RATE, np.float32), "short": np.ones(2 * RATE, np.float32)}
    cut = common_length(waves, RATE)
    assert np.array_equal(cut["long"], cut["short"])
    assert len(cut["long"]) == 2 * RATE
    assert cut["long"][-1] == 0
    assert cut["long"][-RATE // 10] == 1
    same = common_length({"a": waves["long"], "b": waves["long"]}, RATE)
    assert same["a"][-1] == 1, "clips of one length are left as they are"


def test_a_clip_under_a_second_is_refused() -> None:
    with pytest.raises(AudioError, match=r"tiny has 0\.50 s; clips of a listening test have at least 1 s"):
        common_length({"x": noise(2, 0.1), "tiny": noise(0.5, 0.1)}, RATE)


def test_the_common_rate_loses_nothing_that_can_be_heard() -> None:
    assert common_rate([16_000, 44_100]) == 44_100
    assert common_rate([96_000, 44_100]) == 48_000


def test_a_degraded_version_is_far_from_the_clip_and_repeatable() -> None:
    time = np.arange(4 * RATE) / RATE
    wave = (0.1 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 4_000 * time)).astype(np.float32)
    bad = degraded(wave, RATE, 1)
    assert np.array_equal(bad, degraded(wave, RATE, 1))
    assert len(bad) == len(wave)
    spectrum = np.abs(np.fft.rfft(bad))
    frequencies = np.fft.rfftfreq(len(bad), 1 / RATE)
    assert spectrum[np.abs(frequencies - 4_000) < 2].max() < 0.05 * spectrum[np.abs(frequencies - 440) < 2].max()
    assert (bad == 0).sum() > RATE, "dropouts"
    assert integrated_loudness(bad, RATE) > -40

"""The stimuli of headphone screening have the properties that the tests rest on."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import soundfile

from plaudit.studio.listening.screening import (
    GAP_SECONDS,
    INTERVALS,
    NEEDED,
    RATE,
    SOUND_SECONDS,
    TRIALS,
    ScreeningKind,
    Trial,
    antiphase_tone,
    huggins_sound,
    passes,
    trial_audio,
    trial_wave,
    trials,
)

KINDS: tuple[ScreeningKind, ...] = ("huggins", "antiphase")


def spectra(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies and the spectra of both ears, of the part between the ramps."""
    steady = sound[RATE // 10 : -RATE // 10]
    left, right = np.fft.rfft(steady * np.hanning(len(steady))[:, None], axis=0).T
    return np.fft.rfftfreq(len(steady), 1 / RATE), left, right


def test_a_huggins_pitch_is_a_phase_of_180_degrees_around_600_hz_and_nothing_else() -> None:
    frequencies, left, right = spectra(huggins_sound(np.random.default_rng(1), pitch=True))
    phase = np.abs(np.angle(left * right.conj()))
    inside = np.abs(frequencies - 600) < 30
    outside = (np.abs(frequencies - 600) > 42) & (frequencies > 50) & (frequencies < 20_000)
    assert np.median(phase[inside]) > 3.1
    assert np.quantile(phase[outside], 0.99) < 0.1


def test_neither_ear_alone_reveals_the_huggins_pitch() -> None:
    pitched = huggins_sound(np.random.default_rng(2), pitch=True)
    plain = huggins_sound(np.random.default_rng(2), pitch=False)
    assert np.array_equal(plain[:, 0], plain[:, 1])
    assert np.array_equal(pitched[:, 0], plain[:, 0])
    for ear in pitched.T:
        power = np.abs(np.fft.rfft(ear)) ** 2
        frequencies = np.fft.rfftfreq(len(ear), 1 / RATE)
        band = power[np.abs(frequencies - 600) <= 36].mean()
        around = power[(np.abs(frequencies - 600) > 40) & (np.abs(frequencies - 600) < 250)].mean()
        assert 0.5 < band / around < 2


def test_the_band_cancels_in_a_mono_sum_of_a_huggins_pitch() -> None:
    frequencies, left, right = spectra(huggins_sound(np.random.default_rng(3), pitch=True))
    power = np.abs(left + right) ** 2
    inside = power[np.abs(frequencies - 600) < 30].mean()
    outside = power[(np.abs(frequencies - 600) > 45) & (np.abs(frequencies - 600) < 300)].mean()
    assert 10 * np.log10(inside / outside) < -30


def test_an_inverted_tone_cancels_in_a_mono_sum_and_the_quiet_one_is_6_db_lower() -> None:
    normal, quiet, inverted = antiphase_tone(False, False), antiphase_tone(True, False), antiphase_tone(False, True)
    rms = [np.sqrt((sound[:, 0] ** 2).mean()) for sound in (normal, quiet, inverted)]
    assert 20 * np.log10(rms[1] / rms[0]) == pytest.approx(-6, abs=0.01)
    assert rms[2] == pytest.approx(rms[0])
    assert np.abs(inverted.sum(axis=1)).max() < 1e-12
    assert np.array_equal(quiet[:, 0], quiet[:, 1])
    spectrum = np.abs(np.fft.rfft(normal[:, 0]))
    assert np.fft.rfftfreq(len(normal), 1 / RATE)[spectrum.argmax()] == 200


@pytest.mark.parametrize("kind", KINDS)
def test_each_position_has_the_target_twice_in_an_order_that_differs(kind: ScreeningKind) -> None:
    orders = set()
    for seed in range(30):
        found = trials(kind, seed)
        assert found == trials(kind, seed)
        assert Counter(trial.target for trial in found) == dict.fromkeys(range(INTERVALS), TRIALS // INTERVALS)
        assert all(trial.distractor != trial.target for trial in found)
        orders.add(tuple(trial.target for trial in found))
    assert len(orders) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_right_answers_pass_as_in_the_papers(kind: ScreeningKind) -> None:
    right = [trial.target for trial in trials(kind, 7)]
    for wrong in range(TRIALS + 1):
        answers = [(answer + 1) % INTERVALS if place < wrong else answer for place, answer in enumerate(right)]
        assert passes(kind, 7, answers) == (TRIALS - wrong >= NEEDED[kind], TRIALS - wrong)
    assert NEEDED == {"huggins": 6, "antiphase": 5}
    with pytest.raises(ValueError, match="6 answers, not 5"):
        passes(kind, 7, right[:5])


def test_loudspeakers_mislead_in_every_antiphase_trial() -> None:
    """Of a mono sum the inverted tone is the quietest, and it is never the right answer."""
    for trial in trials("antiphase", 5):
        mono = trial_wave("antiphase", trial, 0).sum(axis=1)
        step = round((SOUND_SECONDS + GAP_SECONDS) * RATE)
        powers = [(mono[i * step : i * step + RATE] ** 2).sum() for i in range(INTERVALS)]
        assert int(np.argmin(powers)) == trial.distractor != trial.target


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_a_stereo_wav_of_four_seconds_that_does_not_clip(kind: ScreeningKind) -> None:
    wave, rate = soundfile.read(io.BytesIO(trial_audio(kind, 3, 2)), always_2d=True)
    assert rate == RATE
    assert wave.shape == (4 * RATE, 2)
    assert np.abs(wave).max() < 1
    assert np.abs(wave[RATE + 10 : RATE + RATE // 2 - 10]).max() == 0, "silence between two sounds"
    assert trial_audio(kind, 3, 2) == trial_audio(kind, 3, 2) != trial_audio(kind, 3, 3)


def test_the_noise_of_trials_is_new_in_each() -> None:
    first = trial_wave("huggins", Trial(0), 1)[:RATE, 0]
    second = trial_wave("huggins", Trial(0), 2)[:RATE, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05

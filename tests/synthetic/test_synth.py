"""Rendering: the same bits, every instrument audible, in tune, free of aliases."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.synthetic.composer import Note, compose
from plaudit.synthetic.synth import SAMPLE_RATE, TIMBRES, frequency, mix, render
from plaudit.synthetic.truth import BASSES, DRUMS, INSTRUMENTS, LEADS_AND_CHORDS, Truth

RECORDED = {
    1: "219c83ae0e6af8d7e1f3509ec767fda9e3e1b0c4f7f731238993dcf99db6d1d7",
    2: "05babe467df25c2cb2ff7d08fa3b146facccb11808f9a7c13085d8aadbbbe128",
    3: "7faad06e92aa2c86e35a0039444d1fab59c2ec6ad08d0b87644a863a6315c8a0",
}


def int16(wave: np.ndarray) -> np.ndarray:
    return np.rint(wave * np.float32(32767)).astype("<i2")


@pytest.mark.parametrize("seed", RECORDED)
def test_bits_are_those_recorded(seed):
    wave = render(compose(seed, 10.0))
    assert hashlib.sha256(int16(wave).tobytes()).hexdigest() == RECORDED[seed]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**63), st.floats(0.3, 6.0))
def test_waves_have_their_length_level_and_grid(seed, seconds):
    piece = compose(seed, seconds)
    wave = render(piece)
    assert wave.dtype == np.float32 and wave.shape == (round(seconds * SAMPLE_RATE),)
    assert np.abs(wave).max() == pytest.approx(piece.level, abs=1e-4)
    assert 0.5 <= piece.level <= 0.8
    assert np.array_equal(int16(wave) / np.float32(32767), wave)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**63))
def test_every_instrument_is_audible(seed):
    piece = compose(seed, 5.0)
    whole = mix(piece)
    power = np.mean(whole**2)
    for name in piece.truth.instruments:
        without = mix(replace(piece, notes=tuple(note for note in piece.notes if note.instrument != name)))
        assert np.mean((whole - without) ** 2) > 0.001 * power  # above -30 dB of the mix


def single(instrument: str, pitch: float, seconds: float = 1.0) -> np.ndarray:
    piece = compose(1, seconds, Truth("pop", "energetic", (instrument,), 100, "C", "major"))
    note = Note(0.0, seconds, pitch, 1.0, instrument, "melody")
    return mix(replace(piece, notes=(note,), echo=0.0))


@pytest.mark.parametrize("instrument", LEADS_AND_CHORDS + BASSES)
@pytest.mark.parametrize("pitch", [45, 57.5, 76])
def test_every_timbre_plays_its_pitch(instrument, pitch):
    wave = single(instrument, pitch)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n=1 << 17))
    hertz = np.fft.rfftfreq(1 << 17, 1 / SAMPLE_RATE)
    near = (hertz > frequency(pitch) * 0.97) & (hertz < frequency(pitch) * 1.03)
    peak = hertz[near][spectrum[near].argmax()]
    assert abs(1200 * np.log2(peak / frequency(pitch))) < 20  # unison voices and vibrato lie up to 18 cents away
    assert spectrum[near].max() > 0.1 * spectrum.max()


def test_high_notes_do_not_alias():
    wave = single("electric guitar", 93)  # 1760 Hz and up to 34 partials, of which four fit
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    off = np.abs(hertz / frequency(93) - np.round(hertz / frequency(93))) > 0.05
    assert spectrum[off].sum() < 1e-4 * spectrum.sum()


def test_timbres_differ():
    spectra = {}
    for name in TIMBRES:
        wave = single(name, 57)
        frames = np.abs(np.fft.rfft(wave.reshape(10, -1), axis=1))[:, :400]
        spectra[name] = (frames / np.linalg.norm(frames)).ravel()
    names = list(spectra)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert spectra[a] @ spectra[b] < 0.995, (a, b)
    assert set(names) | set(DRUMS) == set(INSTRUMENTS)

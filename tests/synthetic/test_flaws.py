"""Each flaw does what its name says, more with severity, and nothing at zero."""

import hashlib

import numpy as np
import pytest

from plaudit.errors import CorpusError
from plaudit.synthetic.composer import compose
from plaudit.synthetic.exact import ExactRandom
from plaudit.synthetic.flaws import FLAWS, Flaws, bad_balance, clip_hard, detune, jitter, render_flawed
from plaudit.synthetic.synth import render
from plaudit.synthetic.truth import Truth

PIECE = compose(11, 5.0)
RECORDED = "040cff4ad5875eedb2ab629a47286efbf94d6e44728a5733376d643a52d9657d"


def test_no_flaws_is_the_clean_render():
    assert np.array_equal(render_flawed(PIECE, Flaws(), seed=1), render(PIECE))


def test_bits_are_those_recorded():
    wave = render_flawed(PIECE, Flaws(dict.fromkeys(FLAWS, 0.5)), seed=3)
    assert hashlib.sha256(np.rint(wave * 32767).astype("<i2").tobytes()).hexdigest() == RECORDED


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_changes_the_sound_and_repeats(flaw):
    wave = render_flawed(PIECE, Flaws({flaw: 0.3}), seed=2)
    assert np.array_equal(wave, render_flawed(PIECE, Flaws({flaw: 0.3}), seed=2))
    assert np.mean((wave - render(PIECE)) ** 2) > 1e-4 * np.mean(wave**2)
    assert wave.shape == (80_000,) and 0.3 < np.abs(wave).max() <= 0.81


@pytest.mark.parametrize(("severity", "decibels"), [(0.3, 20.0), (1.0, 6.0)])
def test_noise_has_the_level_documented(severity, decibels):
    clean = render(PIECE)
    noisy = render_flawed(PIECE, Flaws({"noise": severity}), seed=2)
    gain = (noisy @ clean) / (clean @ clean)
    measured = 10 * np.log10(np.mean((gain * clean) ** 2) / np.mean((noisy - gain * clean) ** 2))
    assert measured == pytest.approx(decibels, abs=0.5)


def test_detuning_reaches_sixty_cents_and_spares_drums():
    piece = compose(2, 10.0, Truth("pop", "happy", ("piano", "bell", "drum machine"), 110, "C", "major"))
    moves = [
        (b.pitch - a.pitch, a.part) for a, b in zip(piece.notes, detune(piece, 1.0, ExactRandom(1)).notes, strict=True)
    ]
    assert {move for move, part in moves if part == "drums"} == {0}
    assert 0.2 < max(abs(move) for move, _ in moves) <= 0.851


def test_jitter_is_within_ninety_milliseconds_and_wide():
    moves = np.array(
        [b.onset - a.onset for a, b in zip(PIECE.notes, jitter(PIECE, 1.0, ExactRandom(1)).notes, strict=True)]
    )
    assert 0.04 < np.abs(moves).max() <= 0.09
    assert moves.std() > 0.03


def test_a_bad_balance_drowns_the_rest_or_muffles():
    drawn = [bad_balance(PIECE, 1.0, ExactRandom(seed)) for seed in range(40)]
    assert {muffled for _, muffled in drawn} == {True, False}
    for gains, muffled in drawn:
        assert muffled == (not gains)
        if gains:
            assert sorted(gains.values())[-1] == pytest.approx(16.0) and sorted(gains.values())[-2] == 1.0


def test_clipping_flattens_more_with_severity():
    wave = render(PIECE)
    shares = [np.mean(np.abs(clip) == np.abs(clip).max()) for clip in (clip_hard(wave, s) for s in (0.0, 0.3, 1.0))]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.1


def test_dropouts_are_silences_of_fifty_to_two_hundred_milliseconds():
    wave = render_flawed(PIECE, Flaws({"dropouts": 1.0}), seed=4)
    silent = np.concatenate([[0], (wave == 0).astype(int), [0]])
    starts, ends = np.flatnonzero(np.diff(silent) == 1), np.flatnonzero(np.diff(silent) == -1)
    gaps = (ends - starts)[(ends - starts) >= 700]
    assert 2 <= len(gaps) <= 6
    assert gaps.min() >= 790


@pytest.mark.parametrize("severity", [{"wow": 0.5}, {"noise": 1.5}, {"noise": -0.1}, {"noise": float("nan")}])
def test_bad_flaws_are_rejected(severity):
    with pytest.raises(CorpusError, match=r"unknown flaw|must lie in 0 to 1"):
        Flaws(severity)

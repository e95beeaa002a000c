"""Plays pieces: notes in, a waveform out, the same bits on every machine and far faster than real time.

A note is two look-ups in band-limited wavetables (a dark one, and what a bright one adds to it), each times an
envelope; a drum is a stored one-shot. Only additions, multiplications and look-ups touch the signal.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from plaudit.corpus.embedded.composer import Piece
from plaudit.corpus.embedded.drumkit import one_shot
from plaudit.corpus.embedded.exact import TABLE_BITS
from plaudit.corpus.embedded.parts import Note
from plaudit.corpus.embedded.timbres import (
    SAMPLE_RATE,
    TIMBRES,
    band_of,
    envelopes,
    frequency,
    release,
    vibrato,
    wavetables,
)

__all__ = ["PART_GAINS", "SAMPLE_RATE", "mix", "render", "to_int16_grid"]

PART_GAINS = {"melody": 0.22, "chords": 0.12, "pad": 0.085, "arpeggio": 0.13, "bass": 0.23, "drums": 0.62}
_LONGEST = 16 * SAMPLE_RATE
_RAMP = np.arange(_LONGEST, dtype=np.uint32)
_SHORTEST_ENVELOPE = 4096
_ECHO_TAPS = ((0.037, 0.20), (0.061, 0.16), (0.103, 0.13), (0.171, 0.10), (0.259, 0.08), (0.389, 0.06))


def render(piece: Piece) -> np.ndarray:
    """The waveform of a piece, float32 [seconds * 16000], mono, peaking at the piece's level, on the int16 grid."""
    return to_int16_grid(mix(piece), piece.level)


def to_int16_grid(wave: np.ndarray, peak: float) -> np.ndarray:
    """``wave`` scaled to the given peak (silence stays silence) and rounded to k / 32767, float32."""
    highest = float(np.abs(wave).max(initial=0.0))
    scale = np.float32(peak * 32767.0 / highest) if highest > 0 else np.float32(0.0)
    return np.rint(wave * scale) / np.float32(32767.0)


def mix(piece: Piece, gains: Mapping[str, float] | None = None) -> np.ndarray:
    """The unscaled sum of all notes with echo, float32 [T]; ``gains`` multiplies instruments by name."""
    length = round(piece.seconds * SAMPLE_RATE)
    wave = np.zeros(length, dtype=np.float32)
    for note in piece.notes:
        gain = PART_GAINS[note.part] * (gains or {}).get(note.instrument, 1.0)
        if note.part == "drums":
            sound = one_shot(note.instrument, int(note.pitch)) * np.float32(note.velocity * gain)
        else:
            sound = _play(note, piece.brightness, gain)
        start = int(note.onset * SAMPLE_RATE)
        stop = min(start + len(sound), length)
        if stop > start:
            wave[start:stop] += sound[: stop - start]
    return _echo(wave, piece.echo)


def _play(note: Note, brightness: float, gain: float) -> np.ndarray:
    """One pitched note, float32 [n]."""
    timbre, name = TIMBRES[note.instrument], note.instrument
    fade = release(name)
    length = min(int(note.duration * SAMPLE_RATE) + len(fade), _LONGEST)
    padded = max(_SHORTEST_ENVELOPE, 1 << (length - 1).bit_length())  # few distinct lengths: envelopes are shared
    loudness, sparkle = envelopes(name, int(note.pitch // 12), padded)
    dark_table, extra_table = wavetables(name, band_of(note.pitch))
    dark = np.zeros(length, dtype=np.float32)
    extra = np.zeros(length, dtype=np.float32)
    for cents in timbre.detune:
        cycle = frequency(note.pitch + cents / 100.0) / timbre.cycles / SAMPLE_RATE * 4294967296.0
        phase = _RAMP[:length] * np.uint32(int(cycle))
        if timbre.vibrato:
            phase += (vibrato(name, padded)[:length] * cycle).astype(np.int64).astype(np.uint32)
        index = (phase >> np.uint32(32 - TABLE_BITS)).astype(np.intp)
        dark += dark_table.take(index)
        extra += extra_table.take(index)
    level = gain * timbre.gain * note.velocity / float(np.sqrt(float(len(timbre.detune))))
    shine = brightness * (0.4 + 0.6 * note.velocity)
    dark *= loudness[:length]
    extra *= sparkle[:length]
    extra *= np.float32(shine)
    dark += extra
    dark *= np.float32(level)
    dark[-len(fade) :] *= fade
    return dark


def _echo(wave: np.ndarray, amount: float) -> np.ndarray:
    """Adds a few delayed copies: a small room at 0, a wide one at 1."""
    wet = wave.copy()
    for seconds, gain in _ECHO_TAPS:
        delay = int(seconds * (1.0 + amount) * SAMPLE_RATE)
        if delay < len(wave):
            wet[delay:] += wave[:-delay] * np.float32(gain * (0.4 + 2.2 * amount))
    return wet

"""The synthesizer: notes to a waveform, the same bits on every machine and far faster than real time.

A note is two look-ups in band-limited wavetables (a dark one, and what a bright one adds to it), each times an
envelope; a drum is a stored one-shot. Only additions, multiplications and look-ups touch the signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from plaudit.synthetic.composer import Note, Piece
from plaudit.synthetic.exact import TABLE_BITS, TABLE_SIZE, exp2, sine_table, white_noise

SAMPLE_RATE = 16_000
_HIGHEST_HZ = 7_600.0


@dataclass(frozen=True)
class Timbre:
    """A sound as a recipe.

    ``partials``: amplitude of each multiple of the table's own frequency; ``cycles``: how many such multiples make the
    note's pitch (more than 1 lets a bell have partials between the harmonics). ``dark``: factor per partial in the dark
    table. ``attack``, ``release`` in seconds; ``decay``: half-life in seconds towards ``sustain`` (0..1);
    ``dulling``: half-life of the brightness. ``detune``: unison voices in cents. ``vibrato``: depth in cents. ``gain``.
    """

    partials: tuple[float, ...]
    dark: float
    attack: float
    decay: float
    sustain: float
    release: float
    dulling: float
    detune: tuple[float, ...] = (0.0,)
    vibrato: float = 0.0
    cycles: int = 1
    gain: float = 1.0


def _saw(count: int) -> tuple[float, ...]:
    """A sawtooth's harmonics: each as loud as one over its number."""
    return tuple(1.0 / k for k in range(1, count + 1))


def _buzzing(count: int) -> tuple[float, ...]:
    """Brighter than a sawtooth, like an overdriven string: one over the square root of the number."""
    return tuple(1.0 / float(np.sqrt(float(k))) for k in range(1, count + 1))


def _mellow(count: int) -> tuple[float, ...]:
    """Duller than a sawtooth: one over the square of the number."""
    return tuple(1.0 / (k * k) for k in range(1, count + 1))


def _odd(count: int, even: float) -> tuple[float, ...]:
    """A square wave's harmonics with a fraction of the even ones."""
    return tuple((1.0 if k % 2 else even) / k for k in range(1, count + 1))


def _plucked(count: int, position: int) -> tuple[float, ...]:
    """A string plucked at 1/position of its length: harmonics that are multiples of it vanish."""
    return tuple(0.0 if k % position == 0 else (1.0 if k % 2 else 0.8) / k for k in range(1, count + 1))


def _spaced(ratios: Sequence[tuple[int, float]]) -> tuple[float, ...]:
    """Amplitudes at the given multiples, zero between."""
    amplitudes = [0.0] * max(multiple for multiple, _ in ratios)
    for multiple, amplitude in ratios:
        amplitudes[multiple - 1] = amplitude
    return tuple(amplitudes)


TIMBRES = {
    "piano": Timbre(_plucked(24, 8), 0.62, 0.004, 0.45, 0.0, 0.12, 0.15, detune=(-1.5, 1.5)),
    "electric piano": Timbre(
        _spaced(((1, 1.0), (2, 0.18), (3, 0.05), (4, 0.12), (10, 0.10), (14, 0.22))), 0.35, 0.003, 0.7, 0.0, 0.15, 0.08
    ),
    "organ": Timbre(
        _spaced(((1, 0.9), (2, 1.0), (3, 0.6), (4, 0.7), (6, 0.35), (8, 0.45))), 0.85, 0.012, 1.0, 1.0, 0.04, 9.0,
        vibrato=7.0, cycles=2,
    ),
    "acoustic guitar": Timbre(_plucked(30, 5), 0.72, 0.002, 0.28, 0.0, 0.06, 0.10, gain=1.1),
    "electric guitar": Timbre(_buzzing(34), 0.90, 0.004, 2.0, 0.5, 0.05, 1.2, detune=(-4.0, 4.0), gain=0.75),
    "synth lead": Timbre(_odd(30, 0.15), 0.80, 0.006, 0.6, 0.7, 0.05, 0.5, detune=(-7.0, 7.0), vibrato=16.0, gain=0.8),
    "synth pad": Timbre(_saw(20), 0.70, 0.16, 2.0, 0.9, 0.35, 4.0, detune=(-13.0, 0.0, 12.0), gain=0.8),
    "strings": Timbre(_saw(32), 0.86, 0.07, 2.0, 0.9, 0.18, 6.0, detune=(-6.0, 5.0), vibrato=14.0, gain=0.85),
    "brass": Timbre(
        (0.55, 0.8, 1.0, 0.95, 0.8, 0.62, 0.5, 0.38, 0.28, 0.2, 0.15, 0.1, 0.07, 0.05), 0.62,
        0.035, 0.5, 0.8, 0.06, 2.0, vibrato=6.0, gain=0.9,
    ),
    "bell": Timbre(
        _spaced(((4, 1.0), (8, 0.45), (11, 0.4), (22, 0.3), (35, 0.14))), 0.93, 0.001, 0.55, 0.0, 0.5, 0.25, cycles=4
    ),
    "flute": Timbre((1.0, 0.32, 0.12, 0.05, 0.02), 0.5, 0.05, 1.0, 0.9, 0.07, 3.0, vibrato=18.0),
    "upright bass": Timbre(_mellow(10), 0.60, 0.010, 0.22, 0.0, 0.06, 0.12, gain=1.1),
    "electric bass": Timbre(_plucked(14, 4), 0.62, 0.004, 0.50, 0.25, 0.04, 0.20),
    "synth bass": Timbre(_saw(26), 0.72, 0.003, 0.30, 0.45, 0.03, 0.14, detune=(-5.0, 5.0)),
}  # fmt: skip


def frequency(pitch: float) -> float:
    """Hertz of a MIDI pitch, A4 = 69 = 440 Hz."""
    return 440.0 * exp2((pitch - 69.0) / 12.0)


def band_of(pitch: float) -> int:
    """The half-octave band whose wavetable serves this pitch without aliasing."""
    return int(pitch // 6)


@cache
def wavetables(instrument: str, band: int) -> tuple[np.ndarray, np.ndarray]:
    """(dark, bright minus dark) periods, float32 [TABLE_SIZE] each, unit power, free of partials above 7.6 kHz."""
    timbre = TIMBRES[instrument]
    top = frequency(6.0 * band + 6.0) / timbre.cycles
    dark = _additive(timbre.partials, timbre.dark, top)
    bright = _additive(timbre.partials, 1.0, top)
    return dark.astype(np.float32), (bright - dark).astype(np.float32)


def _additive(partials: Sequence[float], falloff: float, top: float) -> np.ndarray:
    """One period as a sum of sines, float64, scaled to unit power by the partials' amplitudes."""
    sine = sine_table()
    position = np.arange(TABLE_SIZE)
    wave = np.zeros(TABLE_SIZE)
    power, factor, first = 0.0, 1.0, True
    for multiple, amplitude in enumerate(partials, start=1):
        if amplitude == 0.0:
            continue
        if not first:
            factor *= falloff
        first = False
        if multiple * top > _HIGHEST_HZ:
            break
        amplitude *= factor
        # A different start for each partial keeps the sum from piling up into one spike.
        wave += amplitude * sine[(multiple * position + multiple * multiple * 397) % TABLE_SIZE]
        power += amplitude * amplitude * 0.5
    return wave / float(np.sqrt(power))


@lru_cache(maxsize=256)
def envelopes(instrument: str, octave: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(loudness, loudness times brightness) over ``length`` samples, float32; higher octaves decay faster."""
    timbre = TIMBRES[instrument]
    speed = exp2((octave - 5) * 0.5)
    decay = timbre.sustain + (1.0 - timbre.sustain) * falling(timbre.decay / speed, length)
    attack = min(max(int(timbre.attack * SAMPLE_RATE), 1), length)
    decay[:attack] *= np.arange(1, attack + 1) / attack
    return decay.astype(np.float32), (decay * falling(timbre.dulling / speed, length)).astype(np.float32)


@cache
def release(instrument: str) -> np.ndarray:
    """The factor by which a note's last samples fade, float32, from 1 to 0."""
    count = int(TIMBRES[instrument].release * SAMPLE_RATE)
    ramp = np.arange(count - 1, -1, -1) / count
    return (ramp * ramp).astype(np.float32)


@cache
def vibrato(instrument: str, length: int) -> np.ndarray:
    """By how many samples the vibrato leads or lags, float64 [length]; it grows over the first 0.3 s."""
    depth = exp2(TIMBRES[instrument].vibrato / 1200.0) - 1.0
    sine = sine_table()
    turn = 5.5 * TABLE_SIZE / SAMPLE_RATE
    wave = sine[(np.arange(length) * turn).astype(np.int64) % TABLE_SIZE]
    onset = np.minimum(np.arange(length) / (0.3 * SAMPLE_RATE), 1.0)
    return np.cumsum(wave * onset * depth)


def falling(half_life: float, length: int) -> np.ndarray:
    """Exponential decay from 1, float64 [length]; a running product, whose order of operations is fixed."""
    factor = exp2(-1.0 / (half_life * SAMPLE_RATE))
    steps = np.full(length, factor)
    steps[0] = 1.0
    return np.multiply.accumulate(steps)


def _tone(start_hz: float, end_hz: float, glide: float, half_life: float, seconds: float) -> np.ndarray:
    """A sine gliding from one frequency to another (half-life ``glide``), decaying."""
    length = int(seconds * SAMPLE_RATE)
    hertz = end_hz + (start_hz - end_hz) * falling(glide, length)
    phase = np.cumsum(hertz * (TABLE_SIZE / SAMPLE_RATE)).astype(np.int64) % TABLE_SIZE
    return sine_table()[phase] * falling(half_life, length)


def _hiss(seed: int, half_life: float, seconds: float, edge: int) -> np.ndarray:
    """Decaying noise, differenced ``edge`` times (brighter) or, below 0, neighbours added as often (duller)."""
    length = int(seconds * SAMPLE_RATE)
    noise = white_noise(seed, length + abs(edge)).astype(np.float64)
    for _ in range(abs(edge)):
        noise = (noise[1:] - noise[:-1]) * 0.7 if edge > 0 else (noise[1:] + noise[:-1]) * 0.7
    return noise * falling(half_life, length)


def _layer(*sounds: np.ndarray) -> np.ndarray:
    """The sum of sounds of different lengths."""
    total = np.zeros(max(len(sound) for sound in sounds))
    for sound in sounds:
        total[: len(sound)] += sound
    return total


def _clap(seed: int) -> np.ndarray:
    """Three quick bursts and a tail."""
    total = np.zeros(int(0.25 * SAMPLE_RATE))
    for start in (0, 170, 350):
        burst = _hiss(seed + start, 0.004, 0.03, -1)
        total[start : start + len(burst)] += burst
    tail = _hiss(seed + 9, 0.035, 0.2, -1)
    total[500 : 500 + len(tail)] += tail[: len(total) - 500]
    return total


@cache
def one_shot(kit: str, pitch: int) -> np.ndarray:
    """The waveform of a drum (36 low, 38 mid, 42 high, 46 open), float32, peak at most 1, ending in silence."""
    sound = _BUILDERS[kit, pitch]()
    fade = 200
    sound[-fade:] *= np.arange(fade - 1, -1, -1) / fade
    return (sound / float(np.abs(sound).max())).astype(np.float32) * np.float32(_GAINS[pitch])


_GAINS = {36: 1.0, 38: 0.75, 42: 0.32, 46: 0.38}
_BUILDERS = {
    ("acoustic drums", 36): lambda: _layer(_tone(150, 62, 0.012, 0.07, 0.3), 0.15 * _hiss(1, 0.004, 0.03, 0)),
    ("acoustic drums", 38): lambda: _layer(0.6 * _tone(240, 185, 0.02, 0.04, 0.2), 0.6 * _hiss(2, 0.05, 0.25, 0)),
    ("acoustic drums", 42): lambda: _hiss(3, 0.018, 0.12, 2),
    ("acoustic drums", 46): lambda: _layer(_hiss(4, 0.11, 0.5, 1), 0.3 * _tone(3150, 3150, 1.0, 0.12, 0.5)),
    ("drum machine", 36): lambda: _tone(190, 47, 0.022, 0.14, 0.45),
    ("drum machine", 38): lambda: _clap(20),
    ("drum machine", 42): lambda: _hiss(21, 0.009, 0.06, 3),
    ("drum machine", 46): lambda: _hiss(22, 0.07, 0.3, 3),
    ("hand percussion", 36): lambda: _tone(215, 196, 0.02, 0.055, 0.25),
    ("hand percussion", 38): lambda: _layer(_tone(345, 330, 0.02, 0.035, 0.2), 0.3 * _hiss(30, 0.004, 0.03, 0)),
    ("hand percussion", 42): lambda: _hiss(31, 0.022, 0.1, 1),
    ("hand percussion", 46): lambda: _layer(
        0.8 * _tone(815, 815, 1.0, 0.03, 0.15), 0.6 * _tone(545, 545, 1.0, 0.03, 0.15)
    ),
}


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

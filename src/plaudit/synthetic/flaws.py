"""Flaws of clips, each with a severity: which listeners dislike and rewards should detect.

Severities run from 0 (absent) to 1; from 0.3 up they are plainly audible. All amounts are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from plaudit.errors import CorpusError
from plaudit.synthetic.composer import Piece
from plaudit.synthetic.exact import TABLE_SIZE, ExactRandom, exp2, sine_table, white_noise
from plaudit.synthetic.synth import SAMPLE_RATE, mix, render, to_int16_grid

FLAWS = ("noise", "detuned", "clipped", "out_of_time", "bad_mix", "dropouts")


@dataclass(frozen=True)
class Flaws:
    """Severity 0..1 of each flaw present; absent means 0. Raises CorpusError on an unknown flaw or severity."""

    severity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.severity.items():
            if name not in FLAWS:
                raise CorpusError(f"unknown flaw {name!r}: choose from {', '.join(FLAWS)}")
            if not 0.0 <= value <= 1.0:
                raise CorpusError(f"severity of {name} must lie in 0 to 1, got {value}")

    def __getitem__(self, name: str) -> float:
        """The severity of a flaw, 0 where it is absent."""
        return float(self.severity.get(name, 0.0))


def render_flawed(piece: Piece, flaws: Flaws, seed: int) -> np.ndarray:
    """The piece as played, mixed and recorded with the flaws, float32 [T] on the int16 grid; bit-exact like ``render``.

    Pitch and timing go wrong before synthesis, the mix during it, and the recording after it. Without flaws it equals
    ``render``.
    """
    if not any(flaws.severity.values()):
        return render(piece)
    rng = ExactRandom(seed, "flaws")
    if flaws["detuned"]:
        piece = detune(piece, flaws["detuned"], rng)
    if flaws["out_of_time"]:
        piece = jitter(piece, flaws["out_of_time"], rng)
    muffled = False
    gains: dict[str, float] = {}
    if flaws["bad_mix"]:
        gains, muffled = bad_balance(piece, flaws["bad_mix"], rng)
    wave = mix(piece, gains)
    wave = wave * np.float32(piece.level / max(float(np.abs(wave).max(initial=0.0)), 1e-9))
    if muffled:
        wave = muffle(wave, flaws["bad_mix"])
    if flaws["clipped"]:
        wave = clip_hard(wave, flaws["clipped"])
    if flaws["noise"]:
        wave = wave + hiss_and_hum(wave, flaws["noise"], rng)
    if flaws["dropouts"]:
        wave = drop_out(wave, flaws["dropouts"], rng)
    return to_int16_grid(wave, piece.level)


def detune(piece: Piece, severity: float, rng: ExactRandom) -> Piece:
    """Each pitched instrument is off by up to 60 cents times severity, and each note by up to 25 cents more."""
    offset = {name: rng.uniform(0.5, 1.0) * rng.choice((-0.6, 0.6)) * severity for name in piece.truth.instruments}
    notes = tuple(
        note
        if note.part == "drums"
        else replace(note, pitch=note.pitch + offset[note.instrument] + rng.uniform(-0.25, 0.25) * severity)
        for note in piece.notes
    )
    return replace(piece, notes=notes)


def jitter(piece: Piece, severity: float, rng: ExactRandom) -> Piece:
    """Every note's onset moves by up to 90 ms times severity, each on its own."""
    notes = tuple(
        replace(note, onset=max(note.onset + rng.uniform(-0.09, 0.09) * severity, 0.0)) for note in piece.notes
    )
    return replace(piece, notes=notes)


def bad_balance(piece: Piece, severity: float, rng: ExactRandom) -> tuple[dict[str, float], bool]:
    """(gain per instrument, whether the mix is muffled): one part up to 24 dB over the others, or a muffled mix."""
    muffled = rng.chance(0.35) or len(piece.truth.instruments) == 1
    if muffled:
        return {}, True
    loud = rng.choice(piece.truth.instruments)
    return {name: exp2(4.0 * severity) if name == loud else 1.0 for name in piece.truth.instruments}, False


def muffle(wave: np.ndarray, severity: float) -> np.ndarray:
    """Two running means of 3 to 13 samples: the highs are gone."""
    width = 3 + round(10 * severity)
    for _ in range(2):
        fixed = np.rint(wave * np.float32(1 << 20)).astype(np.int64)  # integer sums are the same in any order
        total = np.cumsum(np.concatenate([np.zeros(width, dtype=np.int64), fixed]))
        wave = ((total[width:] - total[:-width]) / (float(1 << 20) * width)).astype(np.float32)
    return wave


def clip_hard(wave: np.ndarray, severity: float) -> np.ndarray:
    """Overdrive: everything above a ceiling of 70 % down to 9 % of the peak is cut off."""
    ceiling = np.float32(float(np.abs(wave).max(initial=0.0)) * 0.7 * exp2(-2.9 * severity))
    return np.clip(wave, -ceiling, ceiling)


def hiss_and_hum(wave: np.ndarray, severity: float, rng: ExactRandom) -> np.ndarray:
    """White hiss with mains hum, 26 dB (severity 0) to 6 dB (severity 1) below the signal's power."""
    length = len(wave)
    hiss = white_noise(rng.bits(), length) * np.float32(1.7320508)
    turn = rng.choice((50, 60)) * TABLE_SIZE / SAMPLE_RATE
    position = (np.arange(length) * turn).astype(np.int64)
    sine = sine_table()
    hum = sine[position % TABLE_SIZE] + 0.6 * sine[3 * position % TABLE_SIZE] + 0.4 * sine[5 * position % TABLE_SIZE]
    hum_fraction = rng.uniform(0.2, 0.6)
    noise = hiss * np.float32(1.0 - hum_fraction) + hum.astype(np.float32) * np.float32(hum_fraction)
    decibels = 26.0 - 20.0 * severity
    ratio = exp2(-decibels * 0.16609640474436813)  # 10^(-dB/20), written as a power of two
    return noise * np.float32(_rms(wave) / _rms(noise) * ratio)


def drop_out(wave: np.ndarray, severity: float, rng: ExactRandom) -> np.ndarray:
    """Gaps of silence, 50 to 200 ms long, 2 to 12 of them in ten seconds."""
    wave = wave.copy()
    count = max(round((2.0 + 10.0 * severity) * len(wave) / (10.0 * SAMPLE_RATE)), 1)
    for _ in range(count):
        length = int(rng.uniform(0.05, 0.05 + 0.15 * max(severity, 0.3)) * SAMPLE_RATE)
        start = rng.integer(0, max(len(wave) - length, 1))
        wave[start : start + length] = 0.0
    return wave


def _rms(wave: np.ndarray) -> float:
    """Root mean square over the int16 grid; integer sums are the same in any order."""
    fixed = np.rint(wave * np.float32(32767.0)).astype(np.int64)
    return max(float(np.sqrt(float((fixed * fixed).sum()) / max(len(wave), 1))) / 32767.0, 1e-6)

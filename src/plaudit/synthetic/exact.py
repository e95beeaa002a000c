"""Arithmetic and randomness that give the same bits on every machine.

``numpy.sin``, ``exp`` and ``power`` choose their implementation by processor and differ in the last bit; so does any
sum whose order depends on vector width. Here only ``+ - * /``, comparisons, table look-ups and integers are used:
IEEE 754 fixes their results. Everything in this file is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

TABLE_BITS = 12
TABLE_SIZE = 1 << TABLE_BITS
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

T = TypeVar("T")


@lru_cache(maxsize=1)
def sine_table() -> np.ndarray:
    """One period of a sine, float64 [TABLE_SIZE], by its Taylor series on an eighth of a turn and symmetry."""
    eighth = TABLE_SIZE // 8
    angle = np.arange(eighth + 1, dtype=np.float64) * (3.141592653589793 / (4 * eighth))
    square = angle * angle
    sine, cosine = np.zeros_like(angle), np.zeros_like(angle)
    for k in range(10, -1, -1):  # Horner, from the smallest term up
        sine = 1.0 - sine * square / ((2 * k + 2) * (2 * k + 3))
        cosine = 1.0 - cosine * square / ((2 * k + 1) * (2 * k + 2))
    quarter = np.concatenate([angle * sine, cosine[::-1][1:]])
    half = np.concatenate([quarter, quarter[::-1][1:-1]])
    return np.concatenate([half, -half])


def exp2(x: float) -> float:
    """2 to the power ``x``, by a Taylor series on the fractional part."""
    exponent = int(x // 1)
    z = (x - exponent) * 0.6931471805599453
    total = 1.0
    for k in range(18, 0, -1):
        total = 1.0 + total * z / k
    return total * (float(1 << exponent) if exponent >= 0 else 1.0 / float(1 << -exponent))


def mix64(value: int) -> int:
    """The SplitMix64 finalizer (Steele, Lea and Flood 2014): a 64-bit integer to a well-mixed one."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def white_noise(seed: int, length: int) -> np.ndarray:
    """Uniform noise in [-1, 1), float32 [length]: SplitMix64 of a counter, 24 bits of each."""
    state = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix64(seed & _MASK))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = (state ^ (state >> np.uint64(31))) >> np.uint64(40)
    return state.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)


class ExactRandom:
    """A seeded source of choices (SplitMix64), independent of the stream of any library's version.

    ``stream`` names the purpose, so that two users of one seed draw independently of each other.
    """

    def __init__(self, seed: int, stream: str = "") -> None:
        state = mix64(seed & _MASK)
        for byte in stream.encode():
            state = mix64((state + _GOLDEN * (byte + 1)) & _MASK)
        self._state = state

    def bits(self) -> int:
        """The next 64 random bits as an integer."""
        self._state = (self._state + _GOLDEN) & _MASK
        return mix64(self._state)

    def random(self) -> float:
        """A float in [0, 1)."""
        return (self.bits() >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + (self.bits() >> 11) % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.integer(0, len(options) - 1)]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` different options in random order."""
        pool = list(options)
        return [pool.pop(self.integer(0, len(pool) - 1)) for _ in range(count)]

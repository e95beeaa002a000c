"""The arithmetic that must give the same bits everywhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.synthetic.exact import TABLE_SIZE, ExactRandom, exp2, mix64, sine_table, white_noise


def test_sine_table_is_the_sine():
    expected = np.sin(2 * np.pi * np.arange(TABLE_SIZE) / TABLE_SIZE)
    assert np.abs(sine_table() - expected).max() < 1e-15


@given(st.floats(-40, 40))
def test_exp2_is_two_to_the_power(x):
    assert exp2(x) == pytest.approx(2.0**x, rel=1e-14)


def test_mix64_is_splitmix64():
    golden = 0x9E3779B97F4A7C15  # the published first outputs of SplitMix64 seeded with 1234567
    assert mix64((1234567 + golden) % 2**64) == 6457827717110365317
    assert mix64((1234567 + 2 * golden) % 2**64) == 3203168211198807973


def test_noise_agrees_with_the_scalar_generator():
    golden = 0x9E3779B97F4A7C15
    expected = [(mix64((mix64(7) + (i + 1) * golden) % 2**64) >> 40) * 2.0**-23 - 1.0 for i in range(5)]
    assert white_noise(7, 5).tolist() == expected


def test_noise_is_white_and_centred():
    noise = white_noise(3, 100_000).astype(np.float64)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01


@given(st.integers(0, 2**64 - 1))
def test_dice_repeat_and_stay_in_range(seed):
    first, second = ExactRandom(seed, "a"), ExactRandom(seed, "a")
    assert [first.bits() for _ in range(3)] == [second.bits() for _ in range(3)]
    assert ExactRandom(seed, "a").bits() != ExactRandom(seed, "b").bits()
    assert 0.0 <= first.random() < 1.0
    assert 2 <= first.integer(2, 4) <= 4
    assert sorted(first.sample("abcd", 4)) == list("abcd")

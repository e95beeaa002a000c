"""Rating pages: the anchor's filter and post-screening."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import freqz

from plaudit.studio.listening.rating import (
    ANCHOR,
    RatedPage,
    anchor,
    anchor_failures,
    anchor_filter,
    reference_failures,
)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_the_anchor_has_the_passband_and_attenuation_of_bs_1534(rate: int) -> None:
    frequencies, response = freqz(anchor_filter(rate), worN=1 << 15, fs=rate)
    level = 20 * np.log10(np.abs(response) + 1e-12)
    assert np.abs(level[frequencies <= 3_500]).max() <= 0.1
    assert level[frequencies >= 4_000].max() <= -25
    assert level[frequencies >= 4_500].max() <= -50


def test_the_anchor_keeps_low_tones_in_time_and_removes_high_ones() -> None:
    rate = 44_100
    time = np.arange(rate) / rate
    low, high = np.sin(2 * np.pi * 1_000 * time), np.sin(2 * np.pi * 6_000 * time)
    result = anchor((low + high).astype(np.float32), rate)
    assert result.dtype == np.float32
    assert len(result) == rate
    middle = slice(rate // 10, -rate // 10)
    assert np.abs(result[middle] - low[middle]).max() < 1e-3


def test_a_rate_too_low_for_an_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a sampling rate over 7000 Hz"):
        anchor_filter(7_000)


def pages(*values: dict[str, int]) -> list[RatedPage]:
    return [RatedPage("l", f"p{i}", one) for i, one in enumerate(values)]


def test_pages_with_a_reference_below_90_are_counted() -> None:
    rated = pages({"real": 90, "x": 50}, {"real": 89, "x": 95}, {"real": 100, "x": 1}, {"x": 3})
    assert reference_failures(rated, "real") == pytest.approx(1 / 3)
    assert reference_failures([], "real") == 0


def test_pages_whose_anchor_is_above_everything_are_counted() -> None:
    rated = pages({ANCHOR: 60, "x": 50}, {ANCHOR: 50, "x": 50}, {ANCHOR: 10, "x": 50}, {"x": 3})
    assert anchor_failures(rated) == pytest.approx(1 / 3)

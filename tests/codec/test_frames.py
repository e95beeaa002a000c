"""ClipSettings into frames and joining them again loses nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.codec.mel import frames, inverse_spectrum, overlap_add, overlap_of, spectrum


@settings(max_examples=8, deadline=None)
@given(count=st.integers(4, 20), overlap=st.sampled_from([2, 4, 8]), hop=st.sampled_from([32, 64]))
def test_overlap_add_undoes_frames(count: int, overlap: int, hop: int) -> None:
    n_fft = overlap * hop
    wave = torch.randn(2, max(count, overlap) * hop, generator=torch.Generator().manual_seed(count))
    window = torch.hann_window(n_fft)
    cut = frames(wave, n_fft, hop)
    assert cut.shape == (2, wave.shape[1] // hop, n_fft)
    # The outermost samples lack the frames that would lie beyond the ends; the overlap accounts for that too.
    joined = overlap_add(cut * window, hop) / overlap_of(window, cut.shape[1], hop)
    torch.testing.assert_close(joined, wave, atol=1e-4, rtol=1e-4)


def test_frame_n_is_centred_half_a_hop_after_n_hops() -> None:
    wave = torch.arange(1024.0)[None]
    cut = frames(wave, 64, 16)
    assert cut[0, 10, 32] == 10 * 16 + 8


@pytest.mark.parametrize("bin_", [3, 10, 31])
def test_spectrum_of_a_sine_peaks_in_its_bin(bin_: int) -> None:
    wave = torch.sin(2 * torch.pi * bin_ / 64 * torch.arange(1024))[None]
    magnitude = spectrum(wave, 64, 16).abs()[0, 20]
    assert int(magnitude.argmax()) == bin_
    assert float(magnitude[bin_]) == pytest.approx(16, rel=1e-3)


def test_inverse_spectrum_undoes_spectrum() -> None:
    wave = torch.randn(2, 2048, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse_spectrum(spectrum(wave, 256, 64), 256, 64), wave, atol=1e-4, rtol=1e-4)

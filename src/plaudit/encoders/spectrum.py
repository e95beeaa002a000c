"""Spectra and features of them: mel and semitone bands, onset strength, autocorrelation. All differentiable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from plaudit.errors import AudioError

BLOCK_SAMPLES = 1 << 19
"""Samples of windowed frames that are transformed at once (ours): 2 MB, so that frames, spectra and what is computed
from them stay in the cache."""


def checked(wave: Tensor, rate: int, seconds: float = 1.0) -> Tensor:
    """`wave` as float32 [B, T]; AudioError where it is not [B, T], is empty, too short, or not finite."""
    if wave.ndim != 2 or wave.shape[0] == 0:
        raise AudioError(f"expected waveforms [batch, samples] with at least one clip, got shape {tuple(wave.shape)}")
    if wave.shape[1] < seconds * rate:
        raise AudioError(f"the audio lasts {wave.shape[1] / rate:.2f} s; at least {seconds:g} s are needed")
    low, high = wave.detach().aminmax()  # NaN where any sample is; one pass, isfinite().all() takes ten times as long
    if not bool(torch.isfinite(high - low)):
        raise AudioError("the audio holds NaN or infinite samples; decode or generate it again")
    return wave.float()


def power_blocks(wave: Tensor, window: int, hop: int, bins: int | None = None) -> Iterator[Tensor]:
    """Power spectra of wave [B, T], frames centred on multiples of `hop`, some frames at a time: [B, N, bins].

    T // hop frames in all; only the lowest `bins` of window / 2 + 1 where given. A full-scale sine peaks at 1/4 (the
    Hann window is scaled to unit sum).
    """
    half = window // 2  # F.pad's reflection takes seven times as long
    padded = torch.cat([wave[:, 1 : half + 1].flip(1), wave, wave[:, -half - 1 : -1].flip(1)], 1)
    frames = padded.unfold(1, window, hop)[:, : wave.shape[1] // hop]  # [B, N, window], a view
    hann = _scaled_hann(window, wave.device)
    for block in frames.split(max(1, BLOCK_SAMPLES // (window * len(wave))), 1):
        spectra = torch.view_as_real(torch.fft.rfft(block * hann)[..., :bins])
        squares = spectra.square()
        yield squares[..., 0] + squares[..., 1]  # squared first: arithmetic on one part in steps of two takes longer


def power(wave: Tensor, window: int, hop: int, bins: int | None = None) -> Tensor:
    """The spectra of `power_blocks` together: [B, T // hop, bins]."""
    return torch.cat(list(power_blocks(wave, window, hop, bins)), 1)


@lru_cache(maxsize=16)
def _scaled_hann(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may use what evaluation has cached
        hann = torch.hann_window(window, device=device)
        return hann / hann.sum()


def mel_edges(low: float, high: float, bands: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Edges and centres in Hz of `bands` filters that lie evenly on HTK's mel scale: [bands + 2]."""
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    return 700 * (10 ** (torch.linspace(lowest, highest, bands + 2, dtype=dtype) / 2595) - 1)


def mel_filters(rate: int, window: int, bands: int, low: float = 30.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Triangles of unit peak on HTK's mel scale, from `low` Hz to half the rate: [bands, window / 2 + 1], float32.

    None is narrower than a bin on either side, or it could miss every bin; this is why it is not transformers' bank.
    """
    edges, width = mel_edges(low, rate / 2, bands, dtype), rate / window
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=dtype)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2]).clamp(min=width)[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1]).clamp(min=width)[:, None]
    return torch.minimum(rise, fall).clamp(0, 1).float()


def semitone_filters(rate: int, window: int, lowest: int = 36, bands: int = 60) -> Tensor:
    """Filters centred on MIDI pitches lowest, lowest + 1, ...: [bands, window / 2 + 1].

    Gaussian in pitch, 0.35 semitones wide but never narrower than a bin of the spectrum.
    """
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64).clamp(min=1e-3)
    pitch = 69 + 12 * torch.log2(bins / 440)
    centres = torch.arange(lowest, lowest + bands, dtype=torch.float64)
    bin_width = 12 / math.log(2) * (rate / window) / (440 * 2 ** ((centres - 69) / 12))  # semitones per bin
    sigma = torch.maximum(torch.full_like(centres, 0.35), 0.6 * bin_width)
    return torch.exp(-0.5 * ((pitch - centres[:, None]) / sigma[:, None]).square()).float()


GROUP = 16
"""Neighbouring bands whose energies are computed in one matrix product (ours): they share most of their bins."""


class LogBands(nn.Module):
    """log10 of the energy in each of `filters` [bands, bins], mostly zeros; silence is log10(floor).

    Filters are rebuilt, never stored. bins: how many of a spectrum's lowest bins are needed.
    """

    def __init__(self, filters: Tensor, floor: float = 1e-8) -> None:
        super().__init__()
        self.floor, self._ranges = floor, list[slice]()
        for number, group in enumerate(filters.split(GROUP)):
            columns = group.any(0).nonzero()
            self._ranges.append(slice(int(columns[0]), int(columns[-1]) + 1))
            self.register_buffer(f"group{number}", group[:, self._ranges[-1]].T.contiguous(), persistent=False)
        self.bins = max(range.stop for range in self._ranges)

    def forward(self, spectra: Tensor) -> Tensor:
        """Power [B, N, bins or more] -> [B, N, bands]."""
        groups = zip(self._ranges, self.buffers(), strict=True)
        energies = [spectra[..., columns] @ filters for columns, filters in groups]
        return torch.cat(energies, -1).clamp(min=self.floor).log10()

    def of_wave(self, wave: Tensor, window: int, hop: int) -> Tensor:
        """wave [B, T] -> [B, bands, T // hop]."""
        blocks = [self(spectra) for spectra in power_blocks(wave, window, hop, self.bins)]
        return torch.cat(blocks, 1).transpose(1, 2).contiguous()


def low_quantile(values: Tensor, fraction: float) -> Tensor:
    """The linearly interpolated quantile of values [..., N] at a small `fraction`: [...], without a full sort."""
    position = fraction * (values.shape[-1] - 1)
    below = int(position)
    lowest = values.topk(min(below + 2, values.shape[-1]), dim=-1, largest=False).values
    return torch.lerp(lowest[..., below], lowest[..., -1], position - below)


def onset_strength(bands: Tensor, groups: int) -> Tensor:
    """The rise of loudness of each group of neighbouring bands from frame to frame: [B, bands, N] -> [B, groups, N]."""
    rise = (bands[..., 1:] - bands[..., :-1]).clamp(min=0)
    return torch.nn.functional.pad(rise, (1, 0)).unflatten(1, (groups, -1)).mean(2)


def autocorrelation(signal: Tensor, lags: int) -> Tensor:
    """Correlation of signal [..., N] with itself, 1..lags frames later: [..., lags], 1 for a perfect repeat.

    The mean is taken out, and each lag is weighted by how many pairs it has; lags beyond the signal give 0.
    """
    length = signal.shape[-1]
    centred = signal - signal.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * (length + lags))
    products = torch.fft.irfft(spectrum.abs().square(), 2 * (length + lags))[..., : lags + 1]
    pairs = (length - torch.arange(1, lags + 1, device=signal.device)).clamp(min=length // 4 + 1) / length
    return products[..., 1:] / pairs / (products[..., :1] + 1e-6)

"""Base of rewards: recordings that are resampled once for all encoders, and identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from plaudit import __version__
from plaudit.audio import range_problem, resample, resample_tensor
from plaudit.errors import AudioError
from plaudit.storage import digest_of, tensors_digest
from plaudit.types import Reward


def identity_of(*parts: Any) -> str:
    """A digest of what a reward depends on; the package's version stands for its code."""
    return digest_of(__version__, *parts)


def identity_of_model(model: Any) -> str:
    """A digest of a frozen model: its class, its plain attributes (name, rate, switches), and any weights.

    A model that is no nn.Module goes by its class and attributes: its name must stand for its weights.
    """
    plain = {key: value for key, value in vars(model).items() if isinstance(value, str | int | float | bool)}
    weights = tensors_digest(model.state_dict()) if isinstance(model, nn.Module) else ""
    return digest_of(type(model).__qualname__, plain, weights)


Waves = Sequence[Tensor | np.ndarray] | Tensor | np.ndarray
"""Clips [T] each, or [B, T]."""


@dataclass(frozen=True)
class View:
    """The part of a recording that an encoder takes: the rate in Hz, and the seconds around the centre, or all.

    through: another rate in Hz that the audio is resampled to first, which loses what lies above half of it.
    """

    rate: int
    seconds: float | None = None
    through: int | None = None


class Recording:
    """A waveform [T] at `rate` Hz, called `name` in errors.

    AudioError where it is not [T], empty, not finite, or silent.
    """

    def __init__(self, wave: Tensor | np.ndarray, rate: int, name: str) -> None:
        self.wave, self.rate = waveform(wave, name), rate
        self._views: dict[tuple[int, int, int | None], Tensor] = {}

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.wave.shape[-1] / self.rate

    def view(self, view: View) -> Tensor:
        """The waveform [T'] of a view, computed once for all encoders that take the same samples."""
        samples = self.wave.shape[-1]
        if view.seconds is not None:
            samples = min(samples, round(view.seconds * self.rate))
        rates = [self.rate, *([view.through] if view.through else []), view.rate]
        if set(rates) == {self.rate}:
            return centre(self.wave, samples)
        key = (view.rate, samples, view.through)
        if key not in self._views:
            wave = centre(self.wave, samples)
            for source, target in pairwise(rates):
                if wave.requires_grad:
                    wave = resample_tensor(wave[None], source, target)[0]
                else:
                    wave = torch.from_numpy(resample(wave.cpu().numpy(), source, target))
            self._views[key] = wave
        return self._views[key]


@runtime_checkable
class RecordingReward(Reward, Protocol):
    """A reward that also takes recordings at any rates, which is faster for files, and whose scores can be cached.

    views: the parts of a recording that it takes. identity: a digest of all that its scores depend on.
    """

    views: tuple[View, ...]
    identity: str

    def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
        """One score per recording [B]."""


def waveform(wave: Tensor | np.ndarray, name: str) -> Tensor:
    """A tensor or an array [T] as a float waveform [T]; integers are scaled to -1..1 as those of an audio file are.

    AudioError where it cannot be scored: the wrong shape, empty, not finite, or silent.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(wave)) if isinstance(wave, np.ndarray) else wave
    if not tensor.is_floating_point():
        tensor = tensor.float() / (torch.iinfo(tensor.dtype).max + 1)
    tensor = tensor.float()
    check_wave(tensor, name)
    return tensor


def check_wave(wave: Tensor, name: str) -> None:
    """AudioError where `wave` [T] cannot be scored: the wrong shape, empty, not finite, silent, or far out of range."""
    if wave.ndim != 1:
        raise AudioError(f"{name} has shape {list(wave.shape)}; the reward takes mono waveforms of shape [T]")
    if wave.numel() == 0:
        raise AudioError(f"{name} is empty; give audio of at least a fraction of a second")
    low, high = wave.detach().aminmax()  # NaN where any sample is
    if problem := range_problem(min(float(low), 0.0), max(float(high), 0.0)):
        raise AudioError(f"{name} {problem}")


def centre(wave: Tensor, samples: int) -> Tensor:
    """The middle `samples` of wave [T], or all of a shorter one."""
    start = max(0, (wave.shape[-1] - samples) // 2)
    return wave[start : start + samples]

"""Rewards: recordings resampled once for every encoder, identities, and the kinds of reward folders."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from plaudit import __version__
from plaudit.audio import range_problem, resample, resample_tensor
from plaudit.code_digest import outside_digest
from plaudit.errors import AudioError, ModelError
from plaudit.storage import read_json
from plaudit.types import AudioEmbedder, Embedder, Reward


def identity_of(*parts: Any) -> str:
    """A digest of what a reward depends on; the package's version stands for its code."""
    return hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()


def identity_of_model(model: Any) -> str:
    """A digest of a frozen model: its class, its plain attributes (name, rate, switches), and any weights.

    A model that is no nn.Module goes by its class and attributes: its name must stand for its weights.
    """
    plain = {key: value for key, value in vars(model).items() if isinstance(value, str | int | float | bool)}
    digest = hashlib.sha256(repr((type(model).__qualname__, sorted(plain.items()))).encode())
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


Waves = Sequence[Tensor | np.ndarray] | Tensor | np.ndarray
"""Clips [T] each, or [B, T]."""


@dataclass(frozen=True)
class View:
    """The part of a recording that an encoder takes: the rate in Hz, and the seconds around the centre, or all."""

    rate: int
    seconds: float | None = None


class Recording:
    """A waveform [T] at `rate` Hz, called `name` in errors.

    AudioError where it is not [T], empty, not finite, or silent.
    """

    def __init__(self, wave: Tensor | np.ndarray, rate: int, name: str) -> None:
        self.wave, self.rate = waveform(wave, name), rate
        self._views: dict[tuple[int, int], Tensor] = {}

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.wave.shape[-1] / self.rate

    def view(self, view: View) -> Tensor:
        """The waveform [T'] of a view, computed once for all encoders that take the same samples."""
        samples = self.wave.shape[-1]
        if view.seconds is not None:
            samples = min(samples, round(view.seconds * self.rate))
        if view.rate == self.rate:
            return centre(self.wave, samples)
        if (view.rate, samples) not in self._views:
            cut = centre(self.wave, samples)
            if cut.requires_grad:
                self._views[view.rate, samples] = resample_tensor(cut[None], self.rate, view.rate)[0]
            else:
                resampled = resample(cut.cpu().numpy(), self.rate, view.rate)
                self._views[view.rate, samples] = torch.from_numpy(resampled)
        return self._views[view.rate, samples]


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


GROUP = "plaudit.rewards"
"""The entry point group of installed rewards: name -> callable without arguments that returns a Reward."""

KINDS = {
    "tunejury": "plaudit.reward.tunejury:load_tunejury",
    "clap": "plaudit.reward.clap_cosine:load_clap_cosine",
    "sum": "plaudit.reward.weighted_sum:load_weighted_sum",
}
"""For each kind that a reward folder's config.json can have, what reads the folder, as "module:function"."""


@dataclass(frozen=True)
class EncoderLoaders:
    """Where a reward folder finds what it names: a CLAP, a second listener, or another reward, by name."""

    clap: Callable[[str], Embedder]
    audio: Callable[[str], AudioEmbedder]
    reward: Callable[[str], Reward]


def read_reward(folder: Path, sources: EncoderLoaders) -> Reward:
    """The reward in a folder; ModelError where it is damaged or of an unknown kind."""
    config = read_json(folder / "config.json")
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"{folder} is of kind {kind!r}, not a reward; its kind must be one of {', '.join(KINDS)}")
    reward: Reward = resolve_name(KINDS[kind])(folder, sources)
    return reward


def installed_rewards() -> dict[str, EntryPoint]:
    """The rewards that installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_installed(point: EntryPoint) -> Reward:
    """An installed package's reward; ModelError where the package fails or gives something else."""
    return _called(point, f"installed reward {point.name!r} ({point.value})")


def is_in_module(name: str) -> bool:
    """Whether a reward is named by its place in Python code, as MODULE:CLASS."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def load_from_module(name: str) -> Reward:
    """The reward that MODULE:CLASS, or any callable there without arguments, returns.

    Modules are looked for in the working folder too. ModelError where the module fails or gives something else.
    """
    with _importing_from_here():
        return _called(EntryPoint(name, name, GROUP), f"reward {name!r}")


def module_digest(name: str) -> str:
    """A digest of the code of a reward named as MODULE:CLASS; "none" where the module is not found."""
    with _importing_from_here():
        try:
            return "none" if find_spec(name.partition(":")[0]) is None else outside_digest(name)
        except (ImportError, ValueError):
            return "none"


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Find modules of the working folder, which an installed command would not, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _called(point: EntryPoint, what: str) -> Reward:
    try:
        made = point.load()()
    except Exception as error:  # whatever a foreign package raises is for the user to take there
        raise ModelError(f"{what} fails: {error!r}; correct its code") from error
    if not callable(getattr(made, "score", None)):
        raise ModelError(f"{what} has no method score; it is not a Reward")
    typed: Reward = made
    return typed

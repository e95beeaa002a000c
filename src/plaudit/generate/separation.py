"""Passes of source separation: a clip is taken apart into stems, and those that are wanted are summed to mono.

The networks are the demucs package's (extra `separate`). Its own driver keeps every stem of the whole piece for every
network of a bag; here a segment's stems are summed as soon as they are there, so that a long piece costs two waveforms
and one segment, and clips of one length are separated together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.audio import fit_length, resample
from plaudit.errors import ModelError
from plaudit.generate.loudness import integrated_loudness
from plaudit.generate.settings import SeparationSettings

NOT_INSTALLED = "separation left out: the demucs package is not installed; pip install 'plaudit[separate]'"

VOCALS = "vocals"
"""The stem that is left out where nothing else is said."""

Network = Any
"""A demucs model or bag of models: audio_channels, samplerate, sources, and what apply_model asks of it."""


@dataclass(frozen=True)
class Separated:
    """A clip [T] after the passes made of it, and how loud what each took out was, in LU relative to the clip.

    A pass that took out what cannot be measured (silence) has -inf.
    """

    wave: np.ndarray
    removed: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Separator:
    """A loaded separation model on its device, under the name it was asked for by."""

    name: str
    network: Network
    device: torch.device

    def __call__(self, waves: Sequence[np.ndarray], rate: int, settings: SeparationSettings) -> list[Separated]:
        """The clips, each [T] at `rate`, after settings.passes passes; they come back in their own rate and length.

        They are resampled once for all passes. ModelError for a stem or a segment that the model does not have.
        """
        kept = kept_stems(self.network.sources, settings)
        segment = segment_seconds(self.network, settings)
        done: dict[int, Separated] = {}
        lengths = dict.fromkeys(len(wave) for wave in waves)
        for length in lengths:
            rows = [row for row, wave in enumerate(waves) if len(wave) == length]
            clips = [resample(waves[row], rate, self.network.samplerate) for row in rows]
            for row, made in zip(rows, self._passes(clips, kept, segment, settings), strict=True):
                wave = fit_length(resample(made.wave, self.network.samplerate, rate), length)
                done[row] = Separated(wave, made.removed)
        return [done[row] for row in range(len(waves))]

    def _passes(
        self, clips: list[np.ndarray], kept: list[int], segment: float, settings: SeparationSettings
    ) -> list[Separated]:
        rate = self.network.samplerate
        heard = [integrated_loudness(clip, rate) for clip in clips]
        found = [Separated(clip) for clip in clips]
        going = list(range(len(clips)))
        for _ in range(settings.passes):
            if not going:
                break
            batch = torch.from_numpy(np.stack([found[row].wave for row in going]))
            wanted, unwanted = split(self.network, batch, kept, segment, settings.overlap, self.device)
            for row, wave, out in zip(going, wanted.numpy(), unwanted.numpy(), strict=True):
                loudness = integrated_loudness(out, rate)
                removed = loudness - heard[row] if np.isfinite(loudness) else -np.inf
                found[row] = Separated(wave, [*found[row].removed, removed])
            if settings.stop_below is not None:
                going = [row for row in going if found[row].removed[-1] >= settings.stop_below]
        return found


def load_separator(name: str, device: torch.device | str = "cpu") -> Separator | None:
    """The model called `name`, or in the folder `name`, for any number of clips; None where demucs is not installed.

    A folder holds demucs's own files: one bag (a .yaml that lists models), or one model (.th). FOLDER/NAME chooses
    among several. Such a .th file is a pickle, which can run code: load only what you trust. ModelError where there is
    no such model.
    """
    if find_spec("demucs") is None:
        return None
    from demucs.pretrained import get_model

    signature, folder = _in_folder(name)
    try:
        network = get_model(signature, folder)
    except (Exception, SystemExit) as error:  # demucs ends the process where it does not know what to do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"no separation model {name!r} ({reason}); give a demucs model's name or a folder") from None
    return Separator(name, network.eval().requires_grad_(False).to(device), torch.device(device))


def kept_stems(sources: Sequence[str], settings: SeparationSettings) -> list[int]:
    """The indices of the stems that are kept; ModelError for one that the model does not have, or if none is left."""
    wanted = [source for source in sources if source != VOCALS] if settings.keep is None else list(settings.keep)
    if unknown := [stem for stem in wanted if stem not in sources]:
        raise ModelError(f"the separation model has no stem {', '.join(unknown)}; it has {', '.join(sources)}")
    if not wanted:
        raise ModelError(f"the separation model has no stem but {VOCALS}; say which to keep")
    return [sources.index(stem) for stem in dict.fromkeys(wanted)]


def segment_seconds(network: Network, settings: SeparationSettings) -> float:
    """The length of a segment: as asked for, or the shortest of the models' own.

    ModelError where a transformer model would have to see more at once than it was trained on.
    """
    models = list(getattr(network, "models", [network]))
    own = min(float(model.segment) for model in models)
    longest = float(getattr(network, "max_allowed_segment", own if _is_transformer(network) else np.inf))
    wanted = own if settings.segment is None else settings.segment
    if wanted > longest:
        raise ModelError(f"the separation model sees at most {longest:g} s at once; lower separate.segment")
    return wanted


@torch.inference_mode()
def split(
    network: Network, clips: Tensor, kept: list[int], segment: float, overlap: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mono clips [B, T] at the network's rate -> sum of the stems at `kept`, and sum of the others, both [B, T].

    Segments overlap and are faded into each other by triangles; a network that sees around a segment is given what is
    there, as by demucs's own driver. Each clip is brought to mean 0 and deviation 1 for the network and back.
    """
    from demucs.apply import TensorChunk, apply_model

    mean = clips.mean(dim=1, keepdim=True)
    deviation = clips.std(dim=1, keepdim=True, correction=0) + 1e-8
    mixture = ((clips - mean) / deviation)[:, None].expand(-1, network.audio_channels, -1).contiguous()
    others = [index for index in range(len(network.sources)) if index not in kept]
    sums = torch.zeros(2, *clips.shape)
    total = torch.zeros(clips.shape[1])
    for start, stop, weight in _segments(clips.shape[1], int(segment * network.samplerate), overlap):
        chunk = TensorChunk(mixture, start, stop - start)
        stems = apply_model(network, chunk, shifts=0, split=False, device=device).mean(dim=2).cpu()  # [B, S, t]
        for side, indices in zip(sums, (kept, others), strict=True):
            side[:, start:stop] += weight * stems[:, indices].sum(dim=1)
        total[start:stop] += weight
    sums /= total
    # Every stem has the clip's mean added by demucs, whose share of a sum grows with the stems in it (ours: once).
    return sums[0] * deviation + mean, sums[1] * deviation


def _segments(length: int, segment: int, overlap: float) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, weight [stop - start]) of segments that cover `length` samples."""
    segment = max(2, segment)
    rise = torch.arange(1, segment // 2 + 1)
    weight = torch.cat([rise, torch.arange(segment - segment // 2, 0, -1)]) / (segment - segment // 2)
    for start in range(0, length, max(1, int((1 - overlap) * segment))):
        stop = min(start + segment, length)
        yield start, stop, weight[: stop - start]


def _is_transformer(network: Network) -> bool:
    from demucs.htdemucs import HTDemucs

    return isinstance(network, HTDemucs)


def _in_folder(name: str) -> tuple[str, Path | None]:
    """The signature and the folder for demucs; a name that is no path is left to it."""
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob("*.yaml")) or sorted(path.glob("*.th"))
        if len(found) != 1:
            names = ", ".join(_signature(file) for file in found)
            what = f"several separation models; name one as {path}/NAME: {names}" if found else "no .yaml or .th file"
            raise ModelError(f"{path} holds {what}")
        return _signature(found[0]), path
    if path.parent != Path(".") and path.parent.is_dir():
        return _signature(path), path.parent
    return name, None


def _signature(file: Path) -> str:
    """Demucs's name of a model: the file's, without the checksum that may follow it."""
    return file.stem.rsplit("-", 1)[0] if file.suffix == ".th" else file.stem

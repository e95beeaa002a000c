"""Source separation: a clip is split into stems, and some of them are summed to mono, once or in several passes.

The networks are the demucs package's (extra `separate`). Its driver keeps every stem of the whole piece for every
network of a bag; here a segment's stems are summed at once, so that a long piece costs two waveforms and one segment,
and clips of one length are separated as a batch.
"""

from __future__ import annotations

import random
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
from plaudit.generate.loudness import PUBLISHED_PEAK, integrated_loudness
from plaudit.generate.settings import SeparationSettings

NOT_INSTALLED = "separation left out: the demucs package is not installed; pip install 'plaudit[separate]'"

VOCALS = "vocals"
"""The stem that is removed by default."""

Network = Any
"""A demucs model or bag of models."""


@dataclass(frozen=True)
class Separated:
    """A clip [T] after separation, and the loudness of what each pass removed, in LU relative to the clip.

    A pass that removed silence has -inf.
    """

    wave: np.ndarray
    removed: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Separator:
    """A loaded separation model on its device, and the name it was loaded by."""

    name: str
    network: Network
    device: torch.device

    def __call__(self, waves: Sequence[np.ndarray], rate: int, settings: SeparationSettings) -> list[Separated]:
        """The clips, each [T] at `rate`, after settings.passes passes, with rate and length unchanged.

        They are resampled once for all passes. ModelError for a stem or a segment that the model does not support.
        """
        stems = kept_stems(self.network.sources, settings)
        segment = segment_seconds(self.network, settings)
        results: dict[int, Separated] = {}
        for length in dict.fromkeys(len(wave) for wave in waves):
            rows = [row for row, wave in enumerate(waves) if len(wave) == length]
            clips = [resample(waves[row], rate, self.network.samplerate) for row in rows]
            for row, result in zip(rows, self._passes(clips, stems, segment, settings), strict=True):
                wave = fit_length(resample(result.wave, self.network.samplerate, rate), length)
                results[row] = Separated(wave, result.removed)
        return [results[row] for row in range(len(waves))]

    def as_published(self, wave: np.ndarray, rate: int, settings: SeparationSettings, seed: int) -> np.ndarray:
        """The clip [T] at `rate` after settings.passes passes of the paper's script, with rate and length unchanged.

        The network gets the clip as it is, without standardizing it, once for each of its models, at a random shift of
        up to half a second, which is drawn from `seed`. After each pass the clip has a peak of 0.95.
        """
        from demucs.apply import apply_model

        stems, network = kept_stems(self.network.sources, settings), self.network
        clip = torch.from_numpy(resample(wave, rate, network.samplerate))
        shifts = random.getstate()
        random.seed(seed)  # demucs draws from the global generator
        try:
            for _ in range(settings.passes):
                mixture = clip.expand(1, network.audio_channels, -1).to(self.device)
                with torch.inference_mode():
                    kept = apply_model(network, mixture)[0, stems].sum(0).mean(0).cpu()
                clip = kept / (kept.abs().max() + 1e-8) * PUBLISHED_PEAK
        finally:
            random.setstate(shifts)
        return fit_length(resample(clip.numpy(), network.samplerate, rate), len(wave))

    def _passes(
        self, clips: list[np.ndarray], stems: list[int], segment: float, settings: SeparationSettings
    ) -> list[Separated]:
        rate = self.network.samplerate
        before = [integrated_loudness(clip, rate) for clip in clips]
        results = [Separated(clip) for clip in clips]
        active = list(range(len(clips)))
        for _ in range(settings.passes):
            if not active:
                break
            batch = torch.from_numpy(np.stack([results[row].wave for row in active]))
            sums = split(self.network, batch, stems, segment, settings.overlap, self.device)
            for row, wave, removed in zip(active, sums[0].numpy(), sums[1].numpy(), strict=True):
                loudness = integrated_loudness(removed, rate)
                relative = loudness - before[row] if np.isfinite(loudness) else -np.inf
                results[row] = Separated(wave, [*results[row].removed, relative])
            if settings.stop_below is not None:
                active = [row for row in active if results[row].removed[-1] >= settings.stop_below]
        return results


def load_separator(name: str, device: torch.device | str = "cpu") -> Separator | None:
    """The model called `name`, or in the folder `name`; None where demucs is not installed.

    A folder holds demucs files: one bag (a .yaml that lists models), or one model (.th); FOLDER/NAME chooses among
    several. A .th file is a pickle, which can run code: load only files that you trust. ModelError where there is no
    such model.
    """
    if find_spec("demucs") is None:
        return None
    from demucs.pretrained import get_model

    signature, folder = _in_folder(name)
    try:
        network = get_model(signature, folder)
    except (Exception, SystemExit) as error:  # demucs exits on errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"no separation model {name!r} ({reason}); give a demucs model's name or a folder") from None
    return Separator(name, network.eval().requires_grad_(False).to(device), torch.device(device))


def kept_stems(sources: Sequence[str], settings: SeparationSettings) -> list[int]:
    """The indices of the stems that are kept; ModelError for one that the model does not have, or if none is left."""
    names = [source for source in sources if source != VOCALS] if settings.keep is None else list(settings.keep)
    if unknown := [stem for stem in names if stem not in sources]:
        raise ModelError(f"the separation model has no stem {', '.join(unknown)}; it has {', '.join(sources)}")
    if not names:
        raise ModelError(f"the separation model has no stem but {VOCALS}; say which to keep")
    return [sources.index(stem) for stem in dict.fromkeys(names)]


def segment_seconds(network: Network, settings: SeparationSettings) -> float:
    """The length of a segment: the configured one, or the shortest default of the models.

    ModelError where it is longer than a transformer model was trained on.
    """
    models = list(getattr(network, "models", [network]))
    default = min(float(model.segment) for model in models)
    longest = float(getattr(network, "max_allowed_segment", default if _is_transformer(network) else np.inf))
    segment = default if settings.segment is None else settings.segment
    if segment > longest:
        raise ModelError(f"the separation model sees at most {longest:g} s at once; lower separate.segment")
    return segment


@torch.inference_mode()
def split(
    network: Network, clips: Tensor, kept: list[int], segment: float, overlap: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mono clips [B, T] at the network's rate -> sum of the stems at `kept`, and sum of the others, both [B, T].

    Segments overlap and are crossfaded by triangles; a network that needs context around a segment gets it, as from
    demucs's driver. Each clip is standardized to mean 0 and deviation 1 for the network.
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
    # Demucs adds the clip's mean to every stem, and so several times to a sum of stems (ours: once).
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
    """The signature and the folder for demucs; no folder for a name that is no path."""
    path = Path(name)
    if path.is_dir():
        files = sorted(path.glob("*.yaml")) or sorted(path.glob("*.th"))
        if len(files) != 1:
            names = ", ".join(_signature(file) for file in files)
            what = f"several separation models; name one as {path}/NAME: {names}" if files else "no .yaml or .th file"
            raise ModelError(f"{path} holds {what}")
        return _signature(files[0]), path
    if path.parent != Path(".") and path.parent.is_dir():
        return _signature(path), path.parent
    return name, None


def _signature(file: Path) -> str:
    """Demucs's name of a model: that of the file, without a checksum at its end."""
    return file.stem.rsplit("-", 1)[0] if file.suffix == ".th" else file.stem

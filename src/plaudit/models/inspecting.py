"""Inspecting model folders: contents, fit of the parts, and other EMA lengths.

An untrained codec, or another than the backbone was trained with, still gives latents of the right shape, and training
on them gives a model of noise. So clips of known content are encoded and decoded, and the latents are compared with the
statistics of the backbone's training set. The checks and their bounds are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from plaudit import loading
from plaudit.audio import resample
from plaudit.backbone.ema import Snapshot, load_parameters, reconstruct
from plaudit.corpus.sources import synthetic_source
from plaudit.devices import batched
from plaudit.encoders.spectrum import LogBands, mel_filters
from plaudit.errors import ModelError
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.storage import SCALE, read_json, save_module
from plaudit.training.checkpoints import SNAPSHOTS
from plaudit.types import Codec

TEXT_TO_MUSIC = "text-to-music"


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Kind, parameters, bytes, licence, provenance and configuration of a model folder; ModelError where damaged."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("provenance", {}), dict):
        raise ModelError(f"{folder / 'config.json'} does not describe a model; check the folder name")
    if not isinstance(config.get("kind", ""), str):
        raise ModelError(f"{folder / 'config.json'}: the kind of a model is a word, not {config['kind']!r}")
    weights = folder / "model.safetensors"
    settings = {key: value for key, value in config.items() if key not in ("kind", "licence", "provenance")}
    return {
        "folder": str(folder.resolve()),
        "kind": config.get("kind", TEXT_TO_MUSIC if "backbone" in config else "unknown"),
        "parameters": parameters(weights),
        "bytes": weights.stat().st_size,
        "licence": str(config.get("licence", "not stated")),
        "provenance": config.get("provenance", {}),
        "config": settings,
    }


def parts_of(config: dict[str, Any]) -> dict[str, str]:
    """The models that a model folder's configuration names, by their role."""
    encoders = config.get("encoders")
    encoders = encoders if isinstance(encoders, dict) else {}
    named = {
        "codec": config.get("codec"),
        "text encoder": config.get("text_encoder"),
        "CLAP": encoders.get("clap", config.get("clap")),
        "listener": encoders.get("audio"),
    }
    return {what: name for what, name in named.items() if isinstance(name, str)}


def parameters(weights: Path) -> int:
    """Numbers in all tensors of a safetensors file, of which only the header is read."""
    if not weights.is_file():
        raise ModelError(f"{weights} does not exist; check the folder name")
    try:
        with safe_open(weights, "pt") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(SCALE)]
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is damaged ({error}); make it again or restore it") from None


def flatten_values(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as rows, their keys joined by dots."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flatten_values(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def average_folder(folder: Path, sigma_rel: float, output: Path, step: int | None = None) -> dict[str, Any]:
    """Write `output`: the model in `folder` with the average of length `sigma_rel` at `step` (the last by default).

    Returns what its provenance says of the average. Snapshots are memory-mapped: the memory is that of one model.
    ModelError where there are no snapshots, they are too few, or `output` is there already.
    """
    if output.exists():
        raise ModelError(f"{output} exists already; name a new folder")
    config = read_model_config(folder)
    paths = sorted((folder / SNAPSHOTS).glob("*.safetensors"))
    if not paths:
        others = sorted({str(path.parent) for path in folder.glob(f"**/{SNAPSHOTS}")})
        hint = f"there are some in {', '.join(others)}" if others else "train it with training_loop.snapshot_every"
        raise ModelError(f"{folder} holds no snapshots; {hint}")
    snapshots = [Snapshot.load(path) for path in paths]
    weights = reconstruct(snapshots, sigma_rel, step)
    backbone = loading.load_backbone(folder, config.backbone)
    if weights.keys() != dict(backbone.named_parameters()).keys():
        raise ModelError(f"the snapshots in {folder} are of adapters, not of whole weights")
    load_parameters(backbone, weights)
    facts = {"sigma_rel": sigma_rel, "step": step or max(s.step for s in snapshots), "snapshots": len(snapshots)}
    config = replace(config, provenance=config.provenance | {"ema": facts})
    save_module(output, backbone, config.to_dict())
    return facts


FIT_CLIPS, FIT_SECONDS = 2, 4.0
FIT_WINDOW, FIT_BANDS = 1024, 32


@dataclass(frozen=True)
class FitCheck:
    """A measurement, its accepted range, and the diagnosis outside of it."""

    name: str
    value: float
    low: float
    high: float
    otherwise: str

    @property
    def passed(self) -> bool:
        """Whether the figure lies in its range; NaN does not."""
        return self.low <= self.value <= self.high


@torch.inference_mode()
def fit_checks(music: TextToMusic) -> list[FitCheck]:
    """The checks of a loaded model, whose parts already have the right shapes."""
    clips = known_clips(music.codec)
    latents = batched(music.codec, music.codec.encode, clips).mean  # [B, N, C]
    backbone = music.backbone
    deviation = backbone.standardize(latents.to(backbone.latent_mean.device)).square().mean().sqrt().item()
    empty, trained = music.encode_texts([""]), backbone.empty_text(1).to("cpu")
    likeness_of_clips = likeness(batched(music.codec, music.codec.decode, latents), clips, music.codec.sample_rate)
    return [
        FitCheck("reconstruction", likeness_of_clips, 0.5, 1.0, "the codec does not reconstruct its input: it is "
                 "untrained, damaged or badly converted"),
        FitCheck("latents", deviation, 0.3, 3.0, "the backbone was trained on the latents of another codec"),
        FitCheck("empty tokens", _cosine(empty.tokens, trained.tokens), 0.95, 1.01,
                 "the backbone was trained with another text encoder"),
        FitCheck("empty pooled", _cosine(empty.pooled, trained.pooled), 0.95, 1.01,
                 "the backbone was trained with another pooled text"),
    ]  # fmt: skip


def require_fit(music: TextToMusic) -> None:
    """ModelError where a check of the model fails, since training would then fit noise."""
    if failed := [check for check in fit_checks(music) if not check.passed]:
        reasons = "; ".join(f"{check.otherwise} ({check.name} {check.value:.2f})" for check in failed)
        raise ModelError(f"the model's parts do not fit: {reasons}; correct its codec or text encoder, then train")


def known_clips(codec: Codec) -> Tensor:
    """Clean pieces of the synthetic composer at the codec's rate, in whole latent frames: [B, T]."""
    source = synthetic_source(FIT_SECONDS, size=FIT_CLIPS, flawed_fraction=0.0, miscaptioned_fraction=0.0)
    waves, rate = source.open().load(source.listing().entries, FIT_SECONDS)
    waves = [resample(wave, rate, codec.sample_rate) for wave in waves]
    batch = torch.stack([torch.from_numpy(wave).float() for wave in waves])
    return batch[:, : batch.shape[1] // codec.hop * codec.hop]


def likeness(output: Tensor, original: Tensor, rate: int) -> float:
    """Correlation of how the band levels of two batches [B, T] move over time: 1 where alike, about 0 for noise.

    Each band's mean is taken off first, because steady noise of a fitting colour would look alike.
    """
    bands = LogBands(mel_filters(rate, FIT_WINDOW, FIT_BANDS))
    moves = []
    for wave in (output, original):
        levels = bands.of_wave(wave, FIT_WINDOW, FIT_WINDOW // 2)
        moves.append((levels - levels.mean(-1, keepdim=True)).flatten())
    return F.cosine_similarity(moves[0], moves[1], dim=0).item()


def _cosine(vector: Tensor, expected: Tensor) -> float:
    return F.cosine_similarity(vector.flatten(), expected.flatten(), dim=0).item()

"""A text-to-music model: network, codec and text encoder, and the folder it is saved in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.backbone.base import Backbone, read_config
from plaudit.backbone.config import BackboneConfig
from plaudit.codec.chunks import decode_piece
from plaudit.devices import batched, device_of
from plaudit.encoders.truncation import truncation
from plaudit.errors import ModelError, PromptError, RecipeError
from plaudit.flow import plan_windows
from plaudit.generate.sampling import Sampler, SamplingPlan
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.reporting import Progress
from plaudit.settings import Seconds, Settings, validated
from plaudit.storage import read_json, save_module, tensors_digest
from plaudit.types import Codec, TextEncoder, TextFeatures

DEFAULT_EXECUTION = Execution()
TEXT_BATCH = 32
"""Prompts that the text encoder encodes at once."""


@dataclass(frozen=True)
class ModelConfig:
    """The content of a model folder's config.json.

    seconds: length of the clips that the model was trained on and generates by default. provenance: recipe_hash, stage,
    version and more. sampling: the model's default settings.
    """

    backbone: BackboneConfig
    codec: str
    text_encoder: str
    seconds: float
    licence: str
    provenance: dict[str, Any]
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        plain = {name: getattr(self, name) for name in ("codec", "text_encoder", "seconds", "licence", "provenance")}
        return {"backbone": self.backbone.to_dict(), **plain, "sampling": self.sampling.model_dump(mode="json")}


@dataclass
class TextToMusic:
    """Prompts -> waveforms.

    second: a model of the same latents that takes part in every trajectory as settings.trajectory says.
    """

    backbone: Backbone
    codec: Codec
    text_encoder: TextEncoder
    config: ModelConfig
    second: TextToMusic | None = None

    def __post_init__(self) -> None:
        config, text = self.backbone.config, self.text_encoder
        expected = (config.latent_dim, config.text_dim, config.text_c_dim, config.text_length)
        sizes = (self.codec.latent_dim, text.token_dim, text.pooled_dim, text.length)
        if expected != sizes:
            raise ModelError(
                f"the backbone takes (latent, token, pooled, tokens) = {expected}, but codec {self.codec.name!r} and "
                f"text encoder {text.name!r} have {sizes}; use those that it was trained with"
            )
        if self.second is not None:
            _check_compatible(self, self.second)

    @property
    def frames(self) -> int:
        """Latent frames of a clip of the default length."""
        return self._frames(self.config.seconds)

    def _frames(self, seconds: float) -> int:
        """Latent frames that fit into so many seconds."""
        return int(seconds * self.codec.sample_rate / self.codec.hop + 1e-9)

    def frames_of(self, settings: SamplingSettings) -> int:
        """Latent frames of a clip: all that fit into its length, or for a loop the nearest whole number.

        RecipeError for less than one.
        """
        seconds, codec = settings.piece.seconds or self.config.seconds, self.codec
        frames = round(seconds * codec.sample_rate / codec.hop) if settings.piece.loop else self._frames(seconds)
        if frames < 1:
            raise RecipeError(f"{seconds:g} s is less than one latent frame of {codec.hop / codec.sample_rate:.3g} s")
        return frames

    def plan(self, settings: SamplingSettings) -> SamplingPlan:
        """The sampling plan under `settings`: windows and the second network.

        RecipeError where there is a second model without a trajectory, or a trajectory without one.
        """
        second = None if self.second is None else self.second.backbone
        if (second is None) != (settings.trajectory is None):
            missing = "a second model" if second is None else "a trajectory (sampling.trajectory)"
            raise RecipeError(f"two models on one trajectory need {missing}")
        piece, frames = settings.piece, self.frames_of(settings)
        length = max(1, self._frames(piece.window or self.config.seconds))
        if frames <= length and not piece.loop:
            return SamplingPlan(None, second)
        overlap = max(1, min(round(piece.overlap * length), length - 1))
        return SamplingPlan(plan_windows(frames, length, overlap, piece.loop), second)

    def weights_digest(self) -> str:
        """16 hexadecimal digits of the network's current weights and statistics."""
        return tensors_digest(self.backbone.state_dict())[:16]

    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = 0,
        settings: SamplingSettings | None = None,
        execution: Execution = DEFAULT_EXECUTION,
        progress: Progress = lambda done, total: None,
    ) -> Tensor:
        """One clip per prompt: waveforms [B, T] at the codec's rate, on the CPU; B is 1 for a single string.

        seeds: one per clip, or the first clip's, from which the others count on. settings: by default the model's. A
        clip depends on its prompt, its seed and the settings, not on the rest of the batch. A UserWarning says what the
        text encoder leaves out of a prompt.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if isinstance(seeds, int | np.integer):
            seeds = range(int(seeds), int(seeds) + len(prompts))
        seeds = [int(seed) for seed in seeds]
        settings = self.config.sampling if settings is None else settings
        for prompt in dict.fromkeys(prompts):
            if reason := truncation(self.text_encoder, settings.text_of(prompt)):
                warnings.warn(f"of prompt {prompt[:60]!r}, {reason}", stacklevel=2)
        clips = []
        for clip in self.stream(prompts, seeds, self.sampler(settings, execution)):
            clips.append(clip)
            progress(len(clips), len(prompts))
        return torch.stack(clips)

    def sampler(self, settings: SamplingSettings, execution: Execution = DEFAULT_EXECUTION) -> Sampler:
        """A sampler, to be kept where clips are generated more than once."""
        return Sampler.build(self.backbone, settings, self.frames_of(settings), execution, self.plan(settings))

    def stream(self, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Iterator[Tensor]:
        """The clips of `generate`, each [T], as soon as its batch is finished."""
        if not prompts or len(prompts) != len(seeds):
            raise PromptError(f"each clip needs a prompt and a seed; got {len(prompts)} prompts and {len(seeds)} seeds")
        settings = sampler.settings
        bf16 = settings.precision == "bf16" and getattr(self.codec, "decodes_in_bf16", False)
        texts = [settings.text_of(prompt) for prompt in prompts]
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        with torch.inference_mode():
            text = self.encode_texts(list(distinct))
            negative = self.encode_texts([settings.negative_prompt])
        for start in range(0, len(texts), sampler.batch):
            rows = torch.tensor([distinct[text] for text in texts[start : start + sampler.batch]])
            latents = sampler.latents(text.rows(rows), negative, seeds[start : start + sampler.batch])
            for clip in latents.to(device_of(self.codec)):
                # One at a time: decoders take the most memory, and one clip keeps a device busy.
                with torch.inference_mode(), torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
                    wave = decode_piece(self.codec, clip[None], settings.piece.loop)[0]
                yield wave.cpu()

    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Features of texts, on the CPU; a few at a time, since encoders pad and memory is limited."""
        encoder, starts = self.text_encoder, range(0, len(texts), TEXT_BATCH)
        return TextFeatures.cat([batched(encoder, encoder.encode, texts[at : at + TEXT_BATCH]) for at in starts])


def _check_compatible(first: TextToMusic, second: TextToMusic) -> None:
    """ModelError where two models have different latents, so that no trajectory can pass from one to the other.

    Noise is added to standardized latents. If these were standardized differently, a state of one model would be at
    another time for the other, and at a different one in every channel.
    """
    for part, a, b in (
        ("codec", first.codec.name, second.codec.name),
        ("text encoder", first.text_encoder.name, second.text_encoder.name),
    ):
        if a != b:
            raise ModelError(f"two models on one trajectory must share a {part}, not {a!r} and {b!r}")
    for name in ("latent_mean", "latent_std"):
        a, b = (getattr(model.backbone, name).float().cpu() for model in (first, second))
        if not torch.allclose(a, b, rtol=1e-5, atol=1e-6):
            raise ModelError(
                "two models on one trajectory must standardize latents alike, but these have other statistics "
                f"({name} differs by up to {(a - b).abs().max():.3g}); use checkpoints of one training set"
            )


def save_model(folder: Path, model: TextToMusic) -> None:
    """Write the model folder: `model.safetensors` first, then `config.json`, which marks it as complete."""
    save_module(folder, model.backbone, model.config.to_dict())


def read_model_config(folder: Path) -> ModelConfig:
    """The config of a model folder; ModelError where it is missing, damaged or of another kind."""
    path = folder / "config.json"
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} does not describe a text-to-music model; check the folder name")
    if "made" in values or "embedded" in (values.get("codec"), values.get("text_encoder")):
        raise ModelError(
            f"{path} is of an older version: its key 'made' is now 'provenance', and the codec and text encoder "
            "'embedded' are now 'synthetic'; change it, or train or import the model again"
        )
    if values.keys() != _ModelFile.model_fields.keys():
        differing = ", ".join(sorted(values.keys() ^ _ModelFile.model_fields.keys()))
        raise ModelError(f"{path} does not describe a text-to-music model: {differing} missing or unknown")
    try:
        content = validated(_ModelFile, values, str(path))
        backbone = read_config(content.backbone)
    except RecipeError as error:
        raise ModelError(str(error)) from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    fields = {name: getattr(content, name) for name in _ModelFile.model_fields if name != "backbone"}
    return ModelConfig(backbone=backbone, **fields)


class _ModelFile(Settings):
    """The entries of a model folder's config.json."""

    backbone: dict[str, Any]
    codec: Annotated[str, Field(min_length=1)]
    text_encoder: Annotated[str, Field(min_length=1)]
    seconds: Seconds
    licence: str
    provenance: dict[str, Any]
    sampling: SamplingSettings

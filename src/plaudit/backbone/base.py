"""The interface of backbones, with training-set statistics, initialization and cross-loading."""

from __future__ import annotations

import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from plaudit.backbone.config import FLUXAUDIO, MEANAUDIO, PRESETS, BackboneConfig
from plaudit.backbone.injections import INJECTIONS, NoInjection
from plaudit.errors import ModelError
from plaudit.registry import Registry
from plaudit.types import TextFeatures


@dataclass(frozen=True)
class Conditions:
    """Text and score as the network uses them: words [B, L, D], among them tokens of the score where these are in the
    text stream, pooled [B, D], and the score embedding e [B, D]."""

    words: Tensor
    pooled: Tensor
    e: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def repeat(self, times: int) -> Conditions:
        """The rows repeated `times` times."""
        return Conditions.cat([self] * times)

    def split(self, size: int) -> list[Conditions]:
        """Consecutive parts of `size` rows."""
        parts = (self.words.split(size), self.pooled.split(size), self.e.split(size))
        return [Conditions(*part) for part in zip(*parts, strict=True)]

    @staticmethod
    def cat(sets: Sequence[Conditions]) -> Conditions:
        """All parts concatenated."""
        return Conditions(
            torch.cat([part.words for part in sets]),
            torch.cat([part.pooled for part in sets]),
            torch.cat([part.e for part in sets]),
        )


class Backbone(nn.Module, ABC):
    """Predicts the velocity of latents that flow from noise (t = 1) to music (t = 0), given text and perhaps a score.

    A subclass defines `conditions` and `velocity`, and sets `self.score = build_injection(config)`. Its weights are
    filled by `initialize` for training, or from a checkpoint.

    Buffers are saved with the weights: `latent_mean`, `latent_std` [C] and `score_mean`, `score_std` [] of the training
    set, and the encoding of the empty string, `empty_tokens` [L, text_dim] and `empty_pooled` [text_c_dim].

    Config: the class of its config. zero_init, small_init: patterns of parameter names that `initialize` sets to zero,
    or draws with a standard deviation of 0.02. average_velocity: whether `velocity` takes a fourth argument, the time
    [B] or [1] at which a step ends, and predicts the average velocity until then.
    """

    Config: ClassVar[type[BackboneConfig]] = BackboneConfig
    average_velocity: ClassVar[bool] = False
    zero_init: ClassVar[str] = r"$^"
    small_init: ClassVar[str] = r"$^"

    config: BackboneConfig
    score: NoInjection
    latent_mean: Tensor
    latent_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    empty_tokens: Tensor
    empty_pooled: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.register_buffer("score_mean", torch.tensor(0.0))
        self.register_buffer("score_std", torch.tensor(1.0))
        self.register_buffer("empty_tokens", torch.zeros(config.text_length, config.text_dim))
        self.register_buffer("empty_pooled", torch.zeros(config.text_c_dim))

    @abstractmethod
    def conditions(self, text: TextFeatures, score: Tensor | None = None) -> Conditions:
        """The parts of text and score conditioning that depend on neither time nor latents."""

    @abstractmethod
    def velocity(self, latents: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Velocity [B, N, C] under conditions of B at times `t` [B] or [1].

        latents [B, N, C], or [M, N, C] where B is a multiple of M: row i then goes with conditions i, M + i, 2 M + i
        and so on.
        """

    def forward(self, latents: Tensor, text: TextFeatures, t: Tensor, score: Tensor | None = None) -> Tensor:
        """Velocity [B, N, C] at standardized `latents` [B, N, C] and times `t` [B] in [0, 1].

        score [B] is in the reward's own units; NaN marks a dropped score, None drops all. A score given to a model
        without an injection is a ModelError.
        """
        return self.velocity(latents, self.conditions(text, score), t)

    def embed_score(self, score: Tensor | None, batch: int) -> Tensor:
        """The embedding e [B, D] of scores [B] in the reward's own units."""
        # The embedder gets standardized scores (ours), so one set of frequencies fits every reward's scale.
        standardized = None if score is None else (score - self.score_mean) / self.score_std
        return self.score.embed(standardized, batch)

    @torch.no_grad()
    def set_statistics(
        self, latent_mean: Tensor, latent_std: Tensor, score_mean: float, score_std: float, empty: TextFeatures
    ) -> None:
        """Fill the buffers: training-set statistics of latents [C] and scores, and the encoding of the empty string.

        empty: features of one prompt, tokens [1, L, text_dim] and pooled [1, text_c_dim].
        """
        self.latent_mean.copy_(latent_mean)
        self.latent_std.copy_(latent_std)
        self.score_mean.fill_(score_mean)
        self.score_std.fill_(score_std)
        self.empty_tokens.copy_(empty.tokens[0])
        self.empty_pooled.copy_(empty.pooled[0])

    def standardize(self, latents: Tensor) -> Tensor:
        """Codec latents [..., C] -> the network's, zero mean and unit variance per channel."""
        return (latents - self.latent_mean) / self.latent_std

    def unstandardize(self, latents: Tensor) -> Tensor:
        """The inverse of `standardize`."""
        return latents * self.latent_std + self.latent_mean

    def empty_text(self, batch: int) -> TextFeatures:
        """The encoding of the empty string, `batch` times."""
        return TextFeatures(self.empty_tokens.expand(batch, -1, -1), self.empty_pooled.expand(batch, -1))

    def for_inference(self, dtype: torch.dtype) -> Backbone:
        """A copy for sampling under autocast to `dtype`, which cannot be trained and follows no later change.

        It computes what the model does under autocast, up to the order of sums, and shares what it can.
        """
        with torch.device("meta"):
            copied = type(self)(self.config)
        copied.load_state_dict(self.state_dict(), assign=True)
        return copied.requires_grad_(False).eval()

    def forward_flops(self, frames: int, text_length: int | None = None) -> int:
        """Floating-point operations of one clip's forward pass, a multiply-add counted as two; here a rough guess.

        frames: latent frames N; text_length: text tokens L, the config's by default. A training step costs
        FORWARD_AND_BACKWARD times as much.
        """
        words = self.config.text_length if text_length is None else text_length
        return 2 * sum(parameter.numel() for parameter in self.parameters()) * (frames + words)

    def row_bytes(self, frames: int, precision: str, device: torch.device) -> int:
        """Roughly the most memory that one row of a pass takes besides the weights, for `frames` latents."""
        return 32 * 4 * self.config.hidden_dim * (frames + self.config.text_length)


FORWARD_AND_BACKWARD = 3
"""A training step costs this many forward passes: one forward, and a backward of twice its products."""

BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    "plaudit.backbones",
    {FLUXAUDIO: "plaudit.backbone.fluxaudio:FluxAudio", MEANAUDIO: "plaudit.backbone.meanaudio:MeanAudio"},
    requires=("Config", "conditions", "velocity"),
)
"""Classes of backbones: subclasses of Backbone."""


def read_config(values: Mapping[str, Any]) -> BackboneConfig:
    """The config in a model folder's config.json, of the backbone that it names; ModelError where it is wrong."""
    kind = values.get("kind", FLUXAUDIO)
    if not isinstance(kind, str):
        raise ModelError(f"backbone: kind must be a name, not {kind!r}")
    return BACKBONES.load(kind).Config.from_dict(values)


def configure(kind: str, preset: str, injection: str, sizes: Mapping[str, int]) -> BackboneConfig:
    """The config of a network of some kind: a preset's with some sizes replaced, or for another kind than FluxAudio,
    those sizes and the preset's for text and latents."""
    if kind == FLUXAUDIO:
        return replace(PRESETS[preset], injection=injection, **dict[str, Any](sizes))
    common = {name: getattr(PRESETS[preset], name) for name in ("latent_dim", "text_dim", "text_c_dim", "text_length")}
    return read_config({**common, **sizes, "kind": kind, "injection": injection})


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network that a config describes, with its weights still to be filled."""
    return BACKBONES.load(config.kind)(config)


def build_injection(config: BackboneConfig) -> NoInjection:
    """The injection that a config names."""
    return INJECTIONS.load(config.injection)(config)


@torch.no_grad()
def initialize(model: Backbone, seed: int) -> None:
    """Fill a backbone with its starting weights.

    As published for FluxAudio: Xavier uniform linears, zero biases, normal(0.02) in the time MLP, zero modulations and
    final convolution; convolutions are uniform within 1 / sqrt(fan in). Scores: see `plaudit.backbone.injections`.
    Every parameter has its own generator, so models that differ in the injection share all other weights.
    """
    for name, parameter in model.named_parameters():
        _draw(model, name, parameter, torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode())))


def _draw(model: Backbone, name: str, parameter: Tensor, generator: torch.Generator) -> None:
    shape, of_score = parameter.shape, name.removeprefix("score.") if name.startswith("score.") else ""
    if re.search(model.zero_init, name) or (of_score and re.match(model.score.zero_init, of_score)):
        parameter.zero_()
    elif len(shape) == 1 and name.endswith("weight"):  # the gain of a norm
        parameter.fill_(1.0)
    elif of_score and re.match(model.score.normal_init, of_score):
        parameter.normal_(generator=generator)
    elif len(shape) < 2:
        parameter.zero_()
    elif re.search(model.small_init, name):
        parameter.normal_(std=0.02, generator=generator)
    elif len(shape) == 3:
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        parameter.uniform_(-bound, bound, generator=generator)
    else:
        # A gate and an up projection stored as one are drawn as the two layers that they are.
        fan_out = shape[0] // 2 if "gate_up" in name else shape[0]
        bound = math.sqrt(6 / (shape[1] + fan_out))
        parameter.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class CrossLoadReport:
    """Tensors that only one of two injections has.

    new: of the target; they are as at initialization. unused: of the weights.
    """

    new: list[str]
    unused: list[str]


def cross_load(state: Mapping[str, Tensor], config: BackboneConfig, seed: int = 0) -> tuple[Backbone, CrossLoadReport]:
    """A backbone of `config` with all that it has in common with `state`, the state dict of a backbone.

    Only what belongs to a score injection may be new or unused; anything else, or a shape that differs, is a
    ModelError. What is new is drawn from `seed` as in training, so that it adds nothing until trained.
    """
    model = build_backbone(config)
    initialize(model, seed)
    target = model.state_dict()
    report = CrossLoadReport(new=sorted(target.keys() - state.keys()), unused=sorted(state.keys() - target.keys()))
    foreign = [name for name in report.new + report.unused if not name.startswith("score.")]
    foreign += sorted(name for name in target.keys() & state.keys() if target[name].shape != state[name].shape)
    if foreign:
        raise ModelError(
            f"cannot cross-load: {len(foreign)} tensors outside the score injection differ, {foreign[0]} first; "
            "change nothing but the injection"
        )
    model.load_state_dict({name: state.get(name, target[name]) for name in target})
    return model, report

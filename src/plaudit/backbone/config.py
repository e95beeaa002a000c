"""Sizes of a backbone, and the published and synthetic sizes of FluxAudio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from plaudit.backbone.injections import INJECTIONS
from plaudit.errors import ModelError
from plaudit.settings import MOST, shortened

MOST_WIDTH, MOST_BLOCKS = 65_536, 256
"""Bounds of sizes (ours), ten times and more what has been published: larger values mean damage."""

FLUXAUDIO = "fluxaudio"
"""The backbone of a config that names none."""

MEANAUDIO = "meanaudio"
"""The backbone that predicts average velocities."""

SPACED, TIME = "spaced", "time"
VECTOR, SCALAR = "vector", "scalar"

UNWRITTEN = (("kind", FLUXAUDIO), ("score_frequencies", SPACED), ("score_null", VECTOR))
"""Values that a model folder's config.json leaves out."""

Config = TypeVar("Config", bound="BackboneConfig")


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number, and no absurd one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


@dataclass(frozen=True)
class BackboneConfig:
    """The sizes that every backbone has; subclasses add their own.

    latent_dim: channels of a latent frame, C.
    text_dim, text_c_dim, text_length: width of a text token, width of the pooled text vector, tokens per prompt, L.
    hidden_dim: width of the network, D.
    injection: how a score conditions the network, a name in INJECTIONS; "none" has no score embedder.
    score_features, score_hidden: Fourier features of the score, and the width of the embedder's hidden layer (ours).
    score_frequencies: of those features: "spaced" (ours), "time" for those of the time embedding, or half as many
    numbers as features, in radians per unit of the score.
    score_null: what stands for a dropped score: "vector", a learned embedding, "scalar", a learned score, or a number,
    which is embedded like a score.
    kind: the backbone's name in BACKBONES.
    """

    latent_dim: int
    text_dim: int
    text_c_dim: int
    hidden_dim: int
    text_length: int = field(default=77, kw_only=True)
    injection: str = field(default="none", kw_only=True)
    score_features: int = field(default=64, kw_only=True)
    score_hidden: int = field(default=256, kw_only=True)
    score_frequencies: str | tuple[float, ...] = field(default=SPACED, kw_only=True)
    score_null: str | float = field(default=VECTOR, kw_only=True)
    kind: str = field(default=FLUXAUDIO, kw_only=True)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, least = getattr(self, entry.name), int(entry.name != "fused_depth")
            most = MOST_BLOCKS if "depth" in entry.name else MOST_WIDTH
            if entry.type not in ("int", int):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                wrong = shortened(repr(value))
                raise ModelError(f"backbone: {entry.name} must be a whole number from {least} to {most}, not {wrong}")
        if not isinstance(self.injection, str):
            raise ModelError(f"backbone: injection must be a name, not {shortened(repr(self.injection))}")
        INJECTIONS.load(self.injection)
        if self.score_features % 2:
            raise ModelError(f"backbone: score_features must be even (cosines and sines), not {self.score_features}")
        if isinstance(self.score_frequencies, list):  # as JSON has it
            object.__setattr__(self, "score_frequencies", tuple(self.score_frequencies))
        self._check_embedding()

    def _check_embedding(self) -> None:
        frequencies, null, half = self.score_frequencies, self.score_null, self.score_features // 2
        numbers = isinstance(frequencies, tuple) and len(frequencies) == half and all(map(is_number, frequencies))
        if not numbers and frequencies not in (SPACED, TIME):
            wrong = shortened(repr(frequencies))
            raise ModelError(f"backbone: score_frequencies must be {SPACED}, {TIME} or {half} numbers, not {wrong}")
        if not is_number(null) and null not in (VECTOR, SCALAR):
            wrong = shortened(repr(null))
            raise ModelError(f"backbone: score_null must be {VECTOR}, {SCALAR} or a number, not {wrong}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model folder's config.json."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in UNWRITTEN}

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """The config written by `to_dict`; ModelError on an unknown key, a missing one or a bad value."""
        names = {entry.name for entry in fields(cls)}
        if unknown := sorted(values.keys() - names):
            raise ModelError(f"backbone: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(names))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"backbone: {error.args[0].removeprefix(f'{cls.__name__}.__init__() ')}") from None


@dataclass(frozen=True)
class FluxAudioConfig(BackboneConfig):
    """Sizes of one FluxAudio network.

    depth: blocks in all; the first depth - fused_depth are joint (text and audio), the other fused_depth audio-only.
    num_heads: attention heads that hidden_dim is split over.
    mlp_multiple: the gated MLPs' inner width, 8/3 D, is rounded up to a multiple of it.
    score_tokens: tokens that the audio attends to under "cross_attention" (ours).
    """

    depth: int
    fused_depth: int
    num_heads: int
    mlp_multiple: int = 256
    score_tokens: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fused_depth >= self.depth:
            raise ModelError(f"backbone: fused_depth {self.fused_depth} must be below depth {self.depth}")
        if self.hidden_dim % (2 * self.num_heads):
            raise ModelError(
                f"backbone: hidden_dim {self.hidden_dim} must split into {self.num_heads} heads of even width"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        """Inner width of every gated MLP: two thirds of 4 D, rounded up to a multiple of `mlp_multiple`."""
        width = 2 * (4 * self.hidden_dim) // 3
        return -(-width // self.mlp_multiple) * self.mlp_multiple


def _published(latent_dim: int, num_heads: int) -> FluxAudioConfig:
    return FluxAudioConfig(
        latent_dim, text_dim=1024, text_c_dim=512, hidden_dim=64 * num_heads, depth=12, fused_depth=8,
        num_heads=num_heads,
    )  # fmt: skip


PRESETS: dict[str, FluxAudioConfig] = {
    "fluxaudio-s-44k": _published(latent_dim=40, num_heads=7),
    "fluxaudio-s-16k": _published(latent_dim=20, num_heads=7),
    "fluxaudio-l-16k": _published(latent_dim=20, num_heads=14),
    "fluxaudio-l-44k": _published(latent_dim=40, num_heads=14),
    "synthetic": FluxAudioConfig(
        latent_dim=40, text_dim=128, text_c_dim=128, hidden_dim=128, depth=6, fused_depth=4, num_heads=2,
        mlp_multiple=64, text_length=32,
    ),
}  # fmt: skip
"""Named sizes: the released FluxAudio models, and the synthetic world's."""

RATES = {"44k": (44_100, 1024), "16k": (16_000, 512)}
"""Sample rate and samples per latent frame of the published sizes, by the end of their names."""

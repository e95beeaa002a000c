"""The facts that fix a FluxAudio network's shape, and the published and synthetic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from plaudit.errors import ModelError
from plaudit.settings import shortened

Injection = Literal["none", "global_adaln", "input_add", "score_token", "cross_attention", "film"]
"""Where the score embedding enters the network; see `plaudit.backbone.injections`."""

INJECTIONS: tuple[Injection, ...] = get_args(Injection)


MOST_WIDTH, MOST_BLOCKS = 65_536, 256
"""Bounds of sizes (ours): ten times and more what has been published; what is larger is no network but damage."""


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of one FluxAudio network.

    latent_dim: channels of a latent frame, C.
    text_dim, text_c_dim, text_length: width of a text token, width of the pooled text vector, tokens per prompt.
    hidden_dim: width of both streams, D, split over `num_heads` heads.
    depth: blocks in all; the first depth - fused_depth are joint (text and audio), the other fused_depth audio-only.
    mlp_multiple: the gated MLPs' inner width, 8/3 D, is rounded up to a multiple of it.
    injection: how a score conditions the network; "none" has no score embedder.
    score_features, score_hidden: Fourier features of the score, and the width of the embedder's hidden layer (ours).
    score_tokens: tokens that the audio attends to under "cross_attention" (ours).
    """

    latent_dim: int
    text_dim: int
    text_c_dim: int
    hidden_dim: int
    depth: int
    fused_depth: int
    num_heads: int
    mlp_multiple: int = 256
    text_length: int = 77
    injection: Injection = "none"
    score_features: int = 64
    score_hidden: int = 256
    score_tokens: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "injection":
                continue
            least, most = int(field.name != "fused_depth"), MOST_BLOCKS if "depth" in field.name else MOST_WIDTH
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                given = shortened(repr(value))
                raise ModelError(f"backbone: {field.name} must be a whole number from {least} to {most}, not {given}")
        if self.injection not in INJECTIONS:
            given = shortened(repr(self.injection))
            raise ModelError(f"backbone: injection {given} is none of {', '.join(INJECTIONS)}")
        if self.fused_depth >= self.depth:
            raise ModelError(f"backbone: fused_depth {self.fused_depth} must be below depth {self.depth}")
        if self.hidden_dim % (2 * self.num_heads):
            raise ModelError(
                f"backbone: hidden_dim {self.hidden_dim} must split into {self.num_heads} heads of even width"
            )
        if self.score_features % 2:
            raise ModelError(f"backbone: score_features must be even (cosines and sines), not {self.score_features}")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        """Inner width of every gated MLP: two thirds of 4 D, rounded up to a multiple of `mlp_multiple`."""
        width = 2 * (4 * self.hidden_dim) // 3
        return -(-width // self.mlp_multiple) * self.mlp_multiple

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model folder's config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """The config written by `to_dict`; ModelError on an unknown key, a missing one or a bad value."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ModelError(f"backbone: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"backbone: {error.args[0].removeprefix('BackboneConfig.__init__() ')}") from None


def _published(latent_dim: int, num_heads: int) -> BackboneConfig:
    return BackboneConfig(
        latent_dim=latent_dim,
        text_dim=1024,
        text_c_dim=512,
        hidden_dim=64 * num_heads,
        depth=12,
        fused_depth=8,
        num_heads=num_heads,
    )


PRESETS: dict[str, BackboneConfig] = {
    "fluxaudio-s-44k": _published(latent_dim=40, num_heads=7),
    "fluxaudio-s-16k": _published(latent_dim=20, num_heads=7),
    "fluxaudio-l-16k": _published(latent_dim=20, num_heads=14),
    "fluxaudio-l-44k": _published(latent_dim=40, num_heads=14),
    "synthetic": BackboneConfig(
        latent_dim=40,
        text_dim=128,
        text_c_dim=128,
        hidden_dim=128,
        depth=6,
        fused_depth=4,
        num_heads=2,
        mlp_multiple=64,
        text_length=32,
    ),
}
"""Named sizes: the released FluxAudio models, and the synthetic world's."""

RATES = {"44k": (44_100, 1024), "16k": (16_000, 512)}
"""Samples a second and a latent frame, of the published sizes by the end of their names."""

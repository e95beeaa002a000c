"""Score conditioning: one embedder of the scalar, and the places where its embedding enters the network.

Every injection has the same `embedder` (and the same parameter names), so a checkpoint trained under one can be run
under another. At initialization no score has an effect: the embedder's last layer and its null embedding start at zero,
and layers that an injection adds start with a zero output. Those layers read inputs that are not zero, or they would
never get a gradient. All but the prepended tokens so leave the network exactly as it is without a score. A prepended
token takes part in attention even where it is zero: the network is the unconditioned one where its blocks are still the
identity, as in training from new weights, and another one once they are not.

`global_adaln`, `input_add`, `audio_prepend` and `text_prepend` are published (arXiv 2606.21670: v1, v2, v3 and v5; v4
is not described anywhere); `score_token`, `cross_attention` and `film` are ours. Another one is a subclass of
ScoreInjection, named in a config by entry point (plaudit.injections) or as `path/to/file.py:Class`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.forms import attend
from plaudit.backbone.layers import Stream, attention_flops, linear_flops, time_features
from plaudit.errors import ModelError
from plaudit.registry import Registry

if TYPE_CHECKING:
    from plaudit.backbone.config import BackboneConfig, FluxAudioConfig

SLOWEST, FASTEST = 1 / 32, 1 / 2
"""Range of the Fourier features, in cycles per standard deviation of the score (ours).

Target scores at generation lie well beyond those seen in training: the slow features keep the embedding changing
steadily there, and none is faster than the reward's own noise.
"""

GATE_SPEED = 10.0
"""Factor inside the score token's tanh gates (ours). Adam moves a parameter by about its learning rate per update,
whatever the gradient: at 1e-4 a gate without this factor would stay closed for thousands of updates.
"""


def fourier_features(score: Tensor, features: int) -> Tensor:
    """score [B] -> cosines, then sines, of it at frequencies spaced evenly in logarithm: [B, features], float32."""
    exponents = torch.linspace(0, 1, features // 2, device=score.device)
    angles = 2 * torch.pi * score.float()[:, None] * SLOWEST * (FASTEST / SLOWEST) ** exponents
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def spaced_frequencies(features: int) -> Tensor:
    """The frequencies of `fourier_features`, in radians: [features / 2], float32."""
    return 2 * torch.pi * SLOWEST * (FASTEST / SLOWEST) ** torch.linspace(0, 1, features // 2)


class ScoreEmbedder(nn.Module):
    """Standardized scores -> embeddings of the network's width; NaN is a dropped score and gives the null embedding.

    The config's score_frequencies and score_null say of which features, and what the null is.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        features, hidden, dim = config.score_features, config.score_hidden, config.hidden_dim
        self.features, self.frequencies, self.null_kind = features, config.score_frequencies, config.score_null
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        if isinstance(self.null_kind, str):
            self.null = nn.Parameter(torch.zeros(()) if self.null_kind == "scalar" else torch.zeros(dim))

    def forward(self, score: Tensor) -> Tensor:
        """score [B] -> [B, D]."""
        dropped = score.isnan()
        if self.null_kind != "vector":
            return self.mlp(self._features(torch.where(dropped, self._null_score().to(score), score)))
        embedding = self.mlp(self._features(score.masked_fill(dropped, 0.0)))
        return torch.where(dropped[:, None], self.null.to(embedding.dtype), embedding)

    def empty(self, batch: int) -> Tensor:
        """The embeddings [B, D] of dropped scores."""
        if self.null_kind == "vector":
            return self.null.expand(batch, -1)
        return self.mlp(self._features(self._null_score().float().expand(batch)))

    def _null_score(self) -> Tensor:
        if isinstance(self.null_kind, str):
            return self.null
        return torch.tensor(float(self.null_kind), device=next(self.mlp.parameters()).device)

    def _features(self, score: Tensor) -> Tensor:
        if self.frequencies == "spaced":
            return fourier_features(score, self.features)
        if self.frequencies == "time":
            return time_features(score, self.features)
        angles = score.float()[:, None] * torch.tensor(self.frequencies, device=score.device)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)


class NoInjection(nn.Module):
    """The hooks by which a score embedding e [B, D] may enter; here all pass through. Subclasses override one.

    zero_init, normal_init: patterns that match the beginning of the names of its parameters that start at zero, and of
    those that start as standard normals; the others start as the network's. audio_tokens: tokens that `audio_input`
    puts before the latents; the network drops them before its final layer.
    """

    zero_init: ClassVar[str] = r"$^"
    normal_init: ClassVar[str] = r"$^"
    audio_tokens: ClassVar[int] = 0

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()

    def embed(self, score: Tensor | None, batch: int) -> Tensor:
        """Standardized scores [B] (NaN where dropped; None drops all) -> e."""
        if score is not None:
            raise ModelError("this model takes no score; leave the score out or use a reward-conditioned model")
        return torch.empty(batch, 0)

    def condition(self, condition: Tensor, e: Tensor) -> Tensor:
        """The global condition [B, D] that modulates every block."""
        return condition

    def audio_input(self, audio: Tensor, e: Tensor) -> Tensor:
        """The audio stream [B, N, D] right after its input projection -> [B, audio_tokens + N, D]."""
        return audio

    def text_input(self, words: Tensor, e: Tensor) -> Tensor:
        """The text stream [B, L, D] right after its input projection; tokens may be put before or after it."""
        return words

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        """The audio stream [B, N, D] as it enters block `index` (joint blocks first)."""
        return audio

    def text_token(self, e: Tensor) -> Tensor | None:
        """One more token [B, 1, D] of the text stream, or None."""
        return None

    def token_gate(self, index: int) -> Tensor | None:
        """The gate of the token in joint block `index`: [D], or None without a token."""
        return None

    def flops(self, frames: int, words: int) -> int:
        """Operations that the injection adds to one clip's forward pass."""
        return 0


class ScoreInjection(NoInjection):
    """Base of the injections: they share the embedder and differ in where they add e."""

    zero_init: ClassVar[str] = r"embedder\.(mlp\.2|null)"

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.config = config
        self.embedder = ScoreEmbedder(config)

    def embed(self, score: Tensor | None, batch: int) -> Tensor:
        return self.embedder.empty(batch) if score is None else self.embedder(score)

    def flops(self, frames: int, words: int) -> int:
        config = self.config
        hidden = linear_flops(1, config.score_features, config.score_hidden)
        return hidden + linear_flops(1, config.score_hidden, config.hidden_dim)


class GlobalAdaLN(ScoreInjection):
    """v1: e is added to the global condition, so it modulates every block."""

    def condition(self, condition: Tensor, e: Tensor) -> Tensor:
        return condition + e


class InputAdd(ScoreInjection):
    """v2: e is added to every audio latent once, right after the input projection."""

    def audio_input(self, audio: Tensor, e: Tensor) -> Tensor:
        return audio + e[:, None]


class AudioPrepend(ScoreInjection):
    """v3: e is one token before the audio, which every block attends to and convolves with its neighbours.

    That it is the sequence's first position, so that latents follow from position 1 on, and is dropped before the final
    layer, is our reading: public is that there is one token, made by an MLP, before the audio sequence.
    """

    audio_tokens = 1
    config: FluxAudioConfig

    def audio_input(self, audio: Tensor, e: Tensor) -> Tensor:
        return torch.cat((e[:, None].to(audio.dtype), audio), dim=1)

    def flops(self, frames: int, words: int) -> int:
        config = self.config
        dim, joint, length = config.hidden_dim, config.depth - config.fused_depth, frames + words
        rows = config.depth * Stream.flops(1, dim, config.mlp_dim, kernel=3, modulated=False)
        rows += joint * _one_more_token(dim, length) + config.fused_depth * _one_more_token(dim, frames)
        return super().flops(frames, words) + rows


class TextPrepend(ScoreInjection):
    """v5: e is one token before the text, which the joint blocks alone attend to.

    Positions as in `AudioPrepend`: words follow from position 1 on.
    """

    config: FluxAudioConfig

    def text_input(self, words: Tensor, e: Tensor) -> Tensor:
        return torch.cat((e[:, None].to(words.dtype), words), dim=1)

    def flops(self, frames: int, words: int) -> int:
        config = self.config
        dim, joint = config.hidden_dim, config.depth - config.fused_depth
        rows = (joint - 1) * Stream.flops(1, dim, config.mlp_dim, modulated=False)
        rows += Stream.flops(1, dim, config.mlp_dim, pre_only=True, modulated=False)
        return super().flops(frames, words) + rows + joint * _one_more_token(dim, frames + words)


def _one_more_token(dim: int, length: int) -> int:
    """What attention over `length` tokens costs more with another one."""
    return attention_flops(dim, length + 1, length + 1) - attention_flops(dim, length, length)


class ScoreToken(ScoreInjection):
    """e plus a learned offset is one more token of the text stream (ours), behind a tanh gate per joint block and head
    that starts at zero."""

    zero_init = ScoreInjection.zero_init + r"|gates"
    normal_init = r"offset"
    config: FluxAudioConfig

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__(config)
        self.offset = nn.Parameter(torch.zeros(config.hidden_dim))
        self.gates = nn.Parameter(torch.zeros(config.depth - config.fused_depth, config.num_heads))
        self.head_dim = config.head_dim

    def text_token(self, e: Tensor) -> Tensor | None:
        return (e + self.offset)[:, None]

    def token_gate(self, index: int) -> Tensor | None:
        return (GATE_SPEED * self.gates[index]).tanh().repeat_interleave(self.head_dim)

    def flops(self, frames: int, words: int) -> int:
        # Attention is computed a second time, with the token; the last text stream is pre-only.
        config, length = self.config, frames + words + 1
        dim, joint = config.hidden_dim, config.depth - config.fused_depth
        streams = (joint - 1) * Stream.flops(1, dim, config.mlp_dim, modulated=False)
        streams += Stream.flops(1, dim, config.mlp_dim, pre_only=True, modulated=False)
        return super().flops(frames, words) + streams + joint * attention_flops(dim, length, length)


class CrossAttention(ScoreInjection):
    """In every block the audio attends to a few tokens projected from e (ours); output projections start at zero."""

    zero_init = ScoreInjection.zero_init + r"|blocks\.\d+\.out\."
    normal_init = r"tokens\.bias"
    config: FluxAudioConfig

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Linear(config.hidden_dim, config.score_tokens * config.hidden_dim)
        self.blocks = nn.ModuleList(_TokenAttention(config.hidden_dim, config.num_heads) for _ in range(config.depth))

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        tokens = self.tokens(e).unflatten(-1, (-1, audio.shape[-1]))  # [B, K, D]
        return audio + self.blocks[index](audio, tokens)

    def flops(self, frames: int, words: int) -> int:
        dim, tokens = self.config.hidden_dim, self.config.score_tokens
        projections = 2 * linear_flops(frames, dim, dim) + linear_flops(tokens, dim, 2 * dim)
        block = linear_flops(1, dim, tokens * dim) + projections + attention_flops(dim, frames, tokens)
        return super().flops(frames, words) + self.config.depth * block


class _TokenAttention(nn.Module):
    """audio [B, N, D] attends to tokens [B, K, D], which have no order and so no positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, audio: Tensor, tokens: Tensor) -> Tensor:
        q = self.query(F.layer_norm(audio, audio.shape[-1:]))
        k, v = self.key_value(tokens).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, H, N or K, d]
        return self.out(attend(q, k, v))


class FiLM(ScoreInjection):
    """A scale and shift of the audio stream per block, from e plus a learned offset, starting at identity (ours)."""

    zero_init = ScoreInjection.zero_init + r"|blocks\."
    normal_init = r"offset"
    config: FluxAudioConfig

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__(config)
        self.offset = nn.Parameter(torch.zeros(config.hidden_dim))
        self.blocks = nn.ModuleList(nn.Linear(config.hidden_dim, 2 * config.hidden_dim) for _ in range(config.depth))

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.blocks[index](F.silu(e + self.offset))[:, None].chunk(2, dim=-1)  # each [B, 1, D]
        return audio * (1 + scale) + shift

    def flops(self, frames: int, words: int) -> int:
        dim = self.config.hidden_dim
        return super().flops(frames, words) + self.config.depth * linear_flops(1, dim, 2 * dim)


INJECTIONS: Registry[type[NoInjection]] = Registry(
    "injection",
    "plaudit.injections",
    {
        "none": NoInjection,
        "global_adaln": GlobalAdaLN,
        "input_add": InputAdd,
        "audio_prepend": AudioPrepend,
        "text_prepend": TextPrepend,
        "score_token": ScoreToken,
        "cross_attention": CrossAttention,
        "film": FiLM,
    },
    requires=("embed", "condition", "audio_input", "text_input", "before_block", "text_token", "token_gate", "flops"),
)
"""Classes of injections, each called with the backbone's config: subclasses of ScoreInjection."""

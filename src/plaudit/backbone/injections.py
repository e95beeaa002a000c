"""Score conditioning: one embedder of the scalar, and five places where its embedding enters the network.

Every injection holds the same `embedder` (and the same parameter names), so a checkpoint trained under one can be
run under another. At initialization each leaves the network exactly as it is without a score: the embedder's last
layer and its null embedding start at zero, and what an injection adds of its own starts with a zero output. Those
outputs read inputs that are not zero, or nothing would ever move.

`global_adaln` and `input_add` are published (arXiv 2606.21670); the details of the other three are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.layers import attend
from plaudit.errors import ModelError

SLOWEST, FASTEST = 1 / 32, 1 / 2
"""Range of the Fourier features, in cycles per standard deviation of the score (ours).

Scores asked for at generation lie well beyond those seen in training; the slow features keep the embedding
changing steadily there, and nothing is faster than the reward's own noise.
"""

GATE_SPEED = 10.0
"""Factor inside the score token's tanh gates (ours). Adam moves a parameter by about its learning rate an update,
whatever the gradient: at 1e-4 a gate without this factor would stay shut for thousands of updates.
"""


def fourier_features(score: Tensor, features: int) -> Tensor:
    """score [B] -> cosines, then sines, of it at frequencies spaced evenly in logarithm: [B, features], float32."""
    exponents = torch.linspace(0, 1, features // 2, device=score.device)
    angles = 2 * torch.pi * score.float()[:, None] * SLOWEST * (FASTEST / SLOWEST) ** exponents
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class ScoreEmbedder(nn.Module):
    """Standardized scores -> embeddings of the network's width; NaN is a dropped score and gives the null embedding."""

    def __init__(self, features: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        self.null = nn.Parameter(torch.zeros(dim))

    def forward(self, score: Tensor) -> Tensor:
        """score [B] -> [B, D]."""
        dropped = score.isnan()
        embedded = self.mlp(fourier_features(score.masked_fill(dropped, 0.0), self.features))
        return torch.where(dropped[:, None], self.null.to(embedded.dtype), embedded)


class NoScore(nn.Module):
    """The hooks by which a score's embedding e [B, D] may enter; here all pass through. Subclasses override one."""

    def embed(self, score: Tensor | None, batch: int) -> Tensor:
        """Standardized scores [B] (NaN where dropped; None drops all) -> e."""
        if score is not None:
            raise ModelError("this model takes no score; leave the score out or use a reward-conditioned model")
        return torch.empty(batch, 0)

    def condition(self, condition: Tensor, e: Tensor) -> Tensor:
        """The global condition [B, D] that modulates every block."""
        return condition

    def audio_input(self, audio: Tensor, e: Tensor) -> Tensor:
        """The audio stream [B, N, D] right after its input projection."""
        return audio

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        """The audio stream [B, N, D] as it enters block `index` (joint blocks first)."""
        return audio

    def text_token(self, e: Tensor) -> Tensor | None:
        """One more token [B, 1, D] of the text stream, or None."""
        return None

    def token_gate(self, index: int) -> Tensor | None:
        """How much joint block `index` heeds the token: [D], or None where there is no token."""
        return None


class ScoreInjection(NoScore):
    """Base of the injections: they share the embedder and differ in where they add e."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.embedder = ScoreEmbedder(config.score_features, config.score_hidden, config.hidden_dim)

    def embed(self, score: Tensor | None, batch: int) -> Tensor:
        return self.embedder.null.expand(batch, -1) if score is None else self.embedder(score)


class GlobalAdaLN(ScoreInjection):
    """v1: e is added to the global condition, so it modulates every block."""

    def condition(self, condition: Tensor, e: Tensor) -> Tensor:
        return condition + e


class InputAdd(ScoreInjection):
    """v2: e is added to every audio latent once, right after the input projection."""

    def audio_input(self, audio: Tensor, e: Tensor) -> Tensor:
        return audio + e[:, None]


class ScoreToken(ScoreInjection):
    """e plus a learned offset is one more token of the text stream (ours), behind a tanh gate per joint block and head
    that starts at zero."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.offset = nn.Parameter(torch.zeros(config.hidden_dim))
        self.gates = nn.Parameter(torch.zeros(config.depth - config.fused_depth, config.num_heads))
        self.head_dim = config.head_dim

    def text_token(self, e: Tensor) -> Tensor | None:
        return (e + self.offset)[:, None]

    def token_gate(self, index: int) -> Tensor | None:
        return (GATE_SPEED * self.gates[index]).tanh().repeat_interleave(self.head_dim)


class CrossAttention(ScoreInjection):
    """In every block the audio attends to a few tokens made from e (ours); the output projections start at zero."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Linear(config.hidden_dim, config.score_tokens * config.hidden_dim)
        self.blocks = nn.ModuleList(_TokenAttention(config.hidden_dim, config.num_heads) for _ in range(config.depth))

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        tokens = self.tokens(e).unflatten(-1, (-1, audio.shape[-1]))  # [B, K, D]
        return audio + self.blocks[index](audio, tokens)


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

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.offset = nn.Parameter(torch.zeros(config.hidden_dim))
        self.blocks = nn.ModuleList(nn.Linear(config.hidden_dim, 2 * config.hidden_dim) for _ in range(config.depth))

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.blocks[index](F.silu(e + self.offset))[:, None].chunk(2, dim=-1)  # each [B, 1, D]
        return audio * (1 + scale) + shift


_CLASSES: dict[str, type[ScoreInjection]] = {
    "global_adaln": GlobalAdaLN,
    "input_add": InputAdd,
    "score_token": ScoreToken,
    "cross_attention": CrossAttention,
    "film": FiLM,
}


def build_injection(config: BackboneConfig) -> NoScore:
    """The injection that a config names."""
    return NoScore() if config.injection == "none" else _CLASSES[config.injection](config)

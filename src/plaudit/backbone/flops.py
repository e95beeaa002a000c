"""What a forward pass of FluxAudio costs in arithmetic, from its sizes alone."""

from __future__ import annotations

from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.layers import TimeEmbedding

TRAINING = 3
"""A training step costs this many forward passes: one forward, and a backward of twice its products."""


def forward_flops(config: BackboneConfig, frames: int, text_length: int | None = None) -> int:
    """Floating-point operations of one clip's forward pass, a multiply-add counted as two.

    frames: latent frames N; text_length: text tokens L, the config's by default. Matrix products, convolutions and
    attention only: norms, activations and modulation are left out, as is usual for model FLOPs. A training step is
    `TRAINING` times as much.
    """
    dim, words = config.hidden_dim, config.text_length if text_length is None else text_length
    joint = config.depth - config.fused_depth
    total = _linear(1, TimeEmbedding.features, dim) + _linear(1, dim, dim)
    total += _linear(1, config.text_c_dim, dim) + _gated_mlp(config, 1)
    total += _linear(words, config.text_dim, dim) + _gated_mlp(config, words)
    total += _linear(frames, 7 * config.latent_dim, dim) + _gated_mlp(config, frames, kernel=7)
    total += config.depth * _stream(config, frames, kernel=3)
    total += (joint - 1) * _stream(config, words, kernel=1) + _pre_only_stream(config, words)
    total += joint * _attention(dim, frames + words, frames + words)
    total += config.fused_depth * _attention(dim, frames, frames)
    total += _linear(1, dim, 2 * dim) + _linear(frames, 7 * dim, config.latent_dim)
    return total + _score(config, frames, words)


def _linear(rows: int, inputs: int, outputs: int) -> int:
    """A matrix product; a convolution is one with kernel x channels as its inputs."""
    return 2 * rows * inputs * outputs


def _attention(dim: int, queries: int, keys: int) -> int:
    """Both products of attention, over all heads."""
    return 2 * _linear(queries, dim, keys)


def _gated_mlp(config: BackboneConfig, rows: int, kernel: int = 1) -> int:
    dim, inner = config.hidden_dim, config.mlp_dim
    return _linear(rows, kernel * dim, 2 * inner) + _linear(rows, kernel * inner, dim)


def _stream(config: BackboneConfig, rows: int, kernel: int) -> int:
    """One stream's half of a block, without the attention."""
    dim = config.hidden_dim
    return _linear(1, dim, 6 * dim) + _qkv(config, rows) + _finish(config, rows, kernel)


def _pre_only_stream(config: BackboneConfig, rows: int) -> int:
    return _linear(1, config.hidden_dim, 2 * config.hidden_dim) + _qkv(config, rows)


def _qkv(config: BackboneConfig, rows: int) -> int:
    """Queries, keys and values."""
    return _linear(rows, config.hidden_dim, 3 * config.hidden_dim)


def _finish(config: BackboneConfig, rows: int, kernel: int) -> int:
    """Output projection and MLP."""
    return _linear(rows, kernel * config.hidden_dim, config.hidden_dim) + _gated_mlp(config, rows, kernel)


def _score(config: BackboneConfig, frames: int, words: int) -> int:
    """What the injection of the score adds."""
    if config.injection == "none":
        return 0
    dim, joint = config.hidden_dim, config.depth - config.fused_depth
    embedder = _linear(1, config.score_features, config.score_hidden) + _linear(1, config.score_hidden, dim)
    if config.injection == "film":
        return embedder + config.depth * _linear(1, dim, 2 * dim)
    if config.injection == "cross_attention":
        tokens = config.score_tokens
        projections = 2 * _linear(frames, dim, dim) + _linear(tokens, dim, 2 * dim)
        block = _linear(1, dim, tokens * dim) + projections + _attention(dim, frames, tokens)
        return embedder + config.depth * block
    if config.injection == "score_token":  # attention is taken a second time, with the token
        length = frames + words + 1
        block = _qkv(config, 1) + _attention(dim, length, length)
        return embedder + joint * block + (joint - 1) * _finish(config, 1, kernel=1)
    return embedder

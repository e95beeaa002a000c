"""FluxAudio: the flow-matching transformer over audio latents, after MeanAudio (arXiv 2508.06098).

Autocast casts every weight to bfloat16 in every step; here that is done once. In bfloat16 on a CPU a convolution over
channels-last rows is written as the matrix product that it is, which processors with matrix units do much faster, and
attention as two products and a softmax, which those without do faster than PyTorch's fused kernel.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.injections import build_injection
from plaudit.backbone.layers import FusedBlock, GatedMLP, JointBlock, SequenceConv, TimeEmbedding, attend, modulate
from plaudit.errors import ModelError
from plaudit.types import TextFeatures


@dataclass(frozen=True)
class Conditions:
    """Text and score as the blocks take them: words [B, L, D], pooled [B, D], and the score's embedding e [B, D]."""

    words: Tensor
    pooled: Tensor
    e: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def repeat(self, times: int) -> Conditions:
        """The same rows `times` over, one whole set after the other."""
        return Conditions.cat([self] * times)

    def split(self, size: int) -> list[Conditions]:
        """Sets of `size` rows."""
        parts = (self.words.split(size), self.pooled.split(size), self.e.split(size))
        return [Conditions(*part) for part in zip(*parts, strict=True)]

    @staticmethod
    def cat(sets: Sequence[Conditions]) -> Conditions:
        """The rows of all sets."""
        return Conditions(
            torch.cat([part.words for part in sets]),
            torch.cat([part.pooled for part in sets]),
            torch.cat([part.e for part in sets]),
        )


class FinalLayer(nn.Module):
    """Modulated norm and a wide convolution back to latents: [B, N, D] -> [B, N, C]."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = SequenceConv(dim, latent_dim, kernel=7)

    def forward(self, audio: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=-1)
        return self.out(modulate(audio, shift, scale))


class FluxAudio(nn.Module):
    """Predicts the velocity of latents that flow from noise (t = 1) to music (t = 0), given text and perhaps a score.

    Buffers travel with the weights: `latent_mean`, `latent_std` [C] and `score_mean`, `score_std` [] of the training
    set, and the encoding of the empty string, `empty_tokens` [L, text_dim] and `empty_pooled` [text_c_dim].
    The weights are still to be filled: by `initialize` for training, or from a checkpoint.
    """

    latent_mean: Tensor
    latent_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    empty_tokens: Tensor
    empty_pooled: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        dim, inner, joint = config.hidden_dim, config.mlp_dim, config.depth - config.fused_depth
        self.time = TimeEmbedding(dim)
        self.pooled_in = nn.Sequential(nn.Linear(config.text_c_dim, dim), GatedMLP(dim, inner))
        self.text_in = nn.Sequential(nn.Linear(config.text_dim, dim), GatedMLP(dim, inner))
        self.audio_in = nn.Sequential(
            SequenceConv(config.latent_dim, dim, kernel=7), nn.SELU(), GatedMLP(dim, inner, kernel=7)
        )
        self.joint_blocks = nn.ModuleList(
            JointBlock(dim, config.num_heads, inner, pre_only=i == joint - 1) for i in range(joint)
        )
        self.fused_blocks = nn.ModuleList(FusedBlock(dim, config.num_heads, inner) for _ in range(config.fused_depth))
        self.final = FinalLayer(dim, config.latent_dim)
        self.score = build_injection(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.register_buffer("score_mean", torch.tensor(0.0))
        self.register_buffer("score_std", torch.tensor(1.0))
        self.register_buffer("empty_tokens", torch.zeros(config.text_length, config.text_dim))
        self.register_buffer("empty_pooled", torch.zeros(config.text_c_dim))

    def forward(self, latents: Tensor, text: TextFeatures, t: Tensor, score: Tensor | None = None) -> Tensor:
        """Velocity [B, N, C] at standardized `latents` [B, N, C] and times `t` [B] in [0, 1].

        score [B] is in the reward's own units; NaN marks a dropped score, None drops all. A score given to a model
        without an injection is a ModelError.
        """
        return self.velocity(latents, self.conditions(text, score), t)

    def conditions(self, text: TextFeatures, score: Tensor | None = None) -> Conditions:
        """What the network makes of the text and the score, which is the same at every time and for all latents."""
        # The embedder sees standardized scores (ours), so one set of frequencies fits every reward's scale.
        standardized = None if score is None else (score - self.score_mean) / self.score_std
        e = self.score.embed(standardized, len(text))  # [B, D]
        return Conditions(self.text_in(text.tokens).float(), self.pooled_in(text.pooled), e)

    def velocity(self, latents: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        """Velocity [B, N, C] under conditions of B at times `t` [B] or [1].

        latents [B, N, C], or [M, N, C] where B is a multiple of M: row i then goes with conditions i, M + i, 2 M + i
        and so on, and passes the input layers once for all of them.
        """
        # The streams and the condition are float32 under autocast too: what a block adds is small beside them.
        condition = (self.time(t) + conditions.pooled).float()
        condition = self.score.condition(condition, conditions.e)[:, None]  # [B, 1, D]
        audio = self.audio_in(latents).float()  # [M, N, D]
        if len(conditions) != len(audio):
            audio = audio.repeat(len(conditions) // len(audio), 1, 1)
        audio = self.score.audio_input(audio, conditions.e)  # [B, N, D]
        words, token = conditions.words, self.score.text_token(conditions.e)  # [B, L, D], [B, 1, D] or None
        for index, joint in enumerate(self.joint_blocks):
            audio = self.score.before_block(index, audio, conditions.e)
            audio, words, token = joint(audio, words, condition, token, self.score.token_gate(index))
        for index, fused in enumerate(self.fused_blocks, start=len(self.joint_blocks)):
            audio = self.score.before_block(index, audio, conditions.e)
            audio = fused(audio, condition)
        return self.final(audio, condition)

    @torch.no_grad()
    def set_statistics(
        self,
        latent_mean: Tensor,
        latent_std: Tensor,
        score_mean: float,
        score_std: float,
        empty: TextFeatures,
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
        """Codec latents [..., C] -> what the network sees, zero mean and unit variance per channel."""
        return (latents - self.latent_mean) / self.latent_std

    def unstandardize(self, latents: Tensor) -> Tensor:
        """The inverse of `standardize`."""
        return latents * self.latent_std + self.latent_mean

    def empty_text(self, batch: int) -> TextFeatures:
        """The encoding of the empty string for a batch of that many."""
        return TextFeatures(self.empty_tokens.expand(batch, -1, -1), self.empty_pooled.expand(batch, -1))


STARTS_AT_ZERO = re.compile(
    r"modulation\.|^final\.out\.|^score\.(embedder\.mlp\.2|embedder\.null|gates|blocks\.\d+\.(out\.)?(weight|bias)$)"
)
"""Modulations and last layers, so that every block starts as the identity and every score injection as nothing."""


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Fill a FluxAudio with its starting weights.

    As published: Xavier uniform linears, zero biases, normal(0.02) in the time MLP, zero modulations and final
    convolution; convolutions are uniform within 1 / sqrt(fan in). Scores: see `plaudit.backbone.injections`.
    Every parameter has a generator of its own, so models that differ in the injection share all other weights.
    """
    for name, parameter in model.named_parameters():
        _start(name, parameter, torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode())))


def _start(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    shape = parameter.shape
    if STARTS_AT_ZERO.search(name):
        parameter.zero_()
    elif name.endswith("_norm.weight"):
        parameter.fill_(1.0)
    elif name in ("score.offset", "score.tokens.bias"):
        parameter.normal_(generator=generator)
    elif name.endswith("bias"):
        parameter.zero_()
    elif name.startswith("time."):
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
    """What two injections don't share.

    new: tensors of the target that the weights had nothing for; they are as at initialization.
    unused: tensors of the weights that the target has no place for.
    """

    new: list[str]
    unused: list[str]


def cross_load(state: Mapping[str, Tensor], config: BackboneConfig, seed: int = 0) -> tuple[FluxAudio, CrossLoadReport]:
    """A FluxAudio of `config` with all that it has in common with `state`, a FluxAudio's state dict.

    Only what belongs to a score injection may be new or unused; anything else, or a shape that differs, is a
    ModelError. What is new is drawn from `seed` as in training, so that it adds nothing until trained.
    """
    model = FluxAudio(config)
    initialize(model, seed)
    own = model.state_dict()
    report = CrossLoadReport(new=sorted(own.keys() - state.keys()), unused=sorted(state.keys() - own.keys()))
    foreign = [name for name in report.new + report.unused if not name.startswith("score.")]
    foreign += sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if foreign:
        raise ModelError(
            f"cannot cross-load: {len(foreign)} tensors outside the score injection differ, {foreign[0]} first; "
            "change nothing but the injection"
        )
    model.load_state_dict({name: state.get(name, own[name]) for name in own})
    return model, report


class UnfoldedConv(nn.Module):
    """A SequenceConv as one matrix product over rows that each hold a whole window: [B, N, in] -> [B, N, out]."""

    def __init__(self, conv: SequenceConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel = conv.kernel_size[0]
        matrix = conv.weight.detach().to(dtype).permute(0, 2, 1).flatten(1)  # [out, kernel in]
        self.register_buffer("matrix", matrix)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))

    matrix: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        margin = self.kernel // 2
        padded = F.pad(x.to(self.matrix.dtype), (0, 0, margin, margin))
        # In memory a window of rows is one longer row, so that copying it is all that unfolding takes.
        windows = padded.as_strided(
            (batch, length, self.kernel * width), ((length + 2 * margin) * width, width, 1)
        ).contiguous()
        return F.linear(windows, self.matrix, self.bias)


LONGEST = 2048
"""Keys up to which attention writes its weights out: their memory grows with the square of the length."""


def attend_with_matmuls(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What `attend` computes, by two matrix products where they are not too long."""
    if keys.shape[-2] > LONGEST:
        return attend(queries, keys, values)
    weights = (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-1, -2)).softmax(-1)  # [B, H, N, N]
    return (weights @ values).transpose(1, 2).flatten(2)


def for_inference(model: FluxAudio, dtype: torch.dtype) -> FluxAudio:
    """A copy of `model` for sampling under autocast to `dtype`; it cannot be trained and follows no later change.

    Matrices are held in `dtype`, all else is shared with the model. It computes what the model does under autocast, up
    to the order of sums.
    """
    with torch.device("meta"):
        copied = FluxAudio(model.config)
    copied.load_state_dict(model.state_dict(), assign=True)
    copied.requires_grad_(False).eval()
    if dtype == torch.float32:
        return copied  # in float32 convolutions run at the speed of products
    for name, module in list(copied.named_modules()):
        if isinstance(module, SequenceConv):
            copied.set_submodule(name, UnfoldedConv(module, dtype))
        elif isinstance(module, nn.Linear):
            for part, value in list(module.named_parameters()):
                setattr(module, part, nn.Parameter(value.to(dtype), requires_grad=False))
        elif isinstance(module, FusedBlock | JointBlock) and model.latent_mean.device.type == "cpu":
            module.attention = attend_with_matmuls
    return copied


FORWARD_AND_BACKWARD = 3
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

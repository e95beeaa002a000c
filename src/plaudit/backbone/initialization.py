"""Weights before training, each drawn from the seed and its own name."""

from __future__ import annotations

import math
import re
import zlib

import torch
from torch import Tensor, nn

STARTS_AT_ZERO = re.compile(
    r"modulation\.|^final\.out\.|^score\.(embedder\.mlp\.2|embedder\.null|gates|blocks\.\d+\.(out\.)?(weight|bias)$)"
)
"""Modulations and last layers, so that every block starts as the identity and every score injection as nothing."""


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Fill a FluxAudio with its starting weights.

    As published: Xavier uniform linears, zero biases, normal(0.02) in the time MLP, zero modulations and final
    convolution; convolutions are uniform within 1 / sqrt(fan in). Scores: see `plaudit.backbone.score`.
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

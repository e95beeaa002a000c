"""The straight path between music (t = 0) and noise (t = 1), and the loss that learns its velocity."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) data + t noise. data and noise [B, ...], t [B]."""
    t = t.view(-1, *[1] * (data.dim() - 1))
    return (1 - t) * data + t * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """dx_t / dt along the path, noise - data, the same at every t."""
    return noise - data


def logit_normal_time(n: int, generator: torch.Generator) -> Tensor:
    """n training times in (0, 1): the sigmoid of standard normals, most of them mid-way."""
    return torch.randn(n, generator=generator).sigmoid()


def flow_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the velocity per sample, in float32: two times [B, ...] -> [B]."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)

"""What tells one reward from another, so that scores of one are never taken for scores of another."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from plaudit import __version__


def identity_of(*parts: Any) -> str:
    """A digest of what a reward is made of; the package's version stands for its code."""
    return hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()


def told_apart_by(model: Any) -> str:
    """A digest of a frozen model: its class, its plain attributes (name, rate, switches), and any weights.

    A model that is no nn.Module goes by its class and attributes: its name must stand for its weights.
    """
    plain = {key: value for key, value in vars(model).items() if isinstance(value, str | int | float | bool)}
    digest = hashlib.sha256(repr((type(model).__qualname__, sorted(plain.items()))).encode())
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

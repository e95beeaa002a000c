"""TuneJury's head: frozen encoders' features -> one score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

PUBLISHED_HIDDEN = (1024, 512, 256, 128)


class TuneJuryHead(nn.Module):
    """Linear-BatchNorm-ReLU-Dropout per hidden width, then a linear to one score (TuneJury, arXiv 2606.17006).

    Weights start Kaiming normal (fan out), biases at zero. Four buffers around the published network are ours, and
    at their initial values change nothing: inputs are standardized by `input_mean` and `input_std` [D], and the
    network's output becomes (output - offset) * scale, so that scores are centred and their margins calibrated.
    """

    input_mean: Tensor
    input_std: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int] = PUBLISHED_HIDDEN,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.input_dim, self.hidden, self.dropout = input_dim, tuple(hidden), dropout
        widths = [input_dim, *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        self.register_buffer("input_mean", torch.zeros(input_dim))
        self.register_buffer("input_std", torch.ones(input_dim))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """features [B, D] -> scores [B]."""
        output: Tensor = self.layers((features - self.input_mean) / self.input_std).squeeze(-1)
        return (output - self.offset) * self.scale

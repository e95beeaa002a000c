"""A score injection: before every block, the score's embedding is added to the audio, with a learned weight each.

Name it in a recipe by its file; the models that are trained keep the name:

    backbone: {injection: examples/injection.py:BlockwiseAdd}

An installed package can name it instead, as an entry point of the group `plaudit.injections`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plaudit.backbone import FluxAudioConfig, ScoreInjection


class BlockwiseAdd(ScoreInjection):
    """audio + weight[i] e before block i.

    ScoreInjection has the embedder of the score, whose last layer starts at zero, so e is zero until it is trained.
    The weights must not start at zero as well, or neither would get a gradient; a one-dimensional parameter that is
    called `weight` starts at one. Other hooks (the global condition, the inputs, a text token) are in NoInjection.
    """

    def __init__(self, config: FluxAudioConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.ones(config.depth))

    def before_block(self, index: int, audio: Tensor, e: Tensor) -> Tensor:
        """audio [B, N, D] and e [B, D] -> the audio that block `index` gets."""
        return audio + self.weight[index] * e[:, None]

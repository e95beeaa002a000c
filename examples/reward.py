"""A reward: how warm a clip sounds, as the octaves by which its spectral centroid lies below 2 kHz.

Name it by its file wherever a reward is named,

    plaudit score clips/ --reward examples/reward.py:Warmth
    plaudit generate "slow sad piano" --best-of 4 --reward examples/reward.py:Warmth

and in a recipe, there relative to the recipe's folder:

    reward: {kind: load, name: ../examples/reward.py:Warmth}

An installed package can name it instead, as an entry point of the group `plaudit.rewards`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW = 2048
REFERENCE_HZ = 2000.0


class Warmth:
    """Called without arguments; `score` is all that a reward needs.

    identity (optional): changes whenever scores do; scores are then cached, and can be saved as a reference.
    """

    identity = "warmth 1"

    def score(self, waves: Sequence[Tensor], rate: int, prompts: Sequence[str]) -> Tensor:
        """One score per clip [B]: waves [T] each at `rate` Hz, one prompt each, "" for none. Higher is better."""
        return torch.stack([torch.log2(REFERENCE_HZ / spectral_centroid(wave.float(), rate)) for wave in waves])


def spectral_centroid(wave: Tensor, rate: int) -> Tensor:
    """The mean frequency in Hz of wave [T], weighted by its power spectrum."""
    window = torch.hann_window(WINDOW)
    power = torch.stft(wave, WINDOW, window=window, return_complex=True).abs().square().mean(1)  # [WINDOW / 2 + 1]
    frequencies = torch.linspace(0, rate / 2, WINDOW // 2 + 1)
    return (frequencies * power).sum() / power.sum()

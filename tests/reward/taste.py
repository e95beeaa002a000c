"""A small truth: clips 0..39 of rising quality, and votes that mostly see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from plaudit.reward.features import FeatureStore, RewardFeatures
from plaudit.reward.training import SYNTHETIC_REWARD, RewardSettings
from plaudit.types import Vote
from tests.reward.listeners import SpectrumEmbedder

CLIPS = 40
CLAP, MERT = SpectrumEmbedder("clap", 6, seed=0), SpectrumEmbedder("mert", 4, seed=1)
FAST: RewardSettings = replace(
    SYNTHETIC_REWARD, blocks=("clap_audio", "audio", "clap_text"), hidden=(16,), batch_size=64, max_epochs=8
)


def votes(count: int, seed: int, source: str = "test", winner: str | None = None) -> list[Vote]:
    """The clip of higher number tends to win; its place in the pair is random, or given by `winner`."""
    generator = torch.Generator().manual_seed(seed)
    output = []
    for n in range(count):
        a, b = torch.randperm(CLIPS, generator=generator)[:2].tolist()
        wins = torch.rand((), generator=generator).item() < 1 / (1 + 2.0 ** ((b - a) / 3))
        if winner in ("a", "b") and wins != (winner == "a"):
            a, b = b, a
        said = winner or ("a" if wins else "b")
        output.append(Vote(f"{source}-{seed}-{n}", f"p{n % 3}", f"{a}", f"{b}", said, "s", "t", source, "l"))  # type: ignore[arg-type]
    return output


def wave(id: str) -> tuple[torch.Tensor, int]:
    """The later the number, the less noise in the tone."""
    number = int(id)
    time = torch.arange(3000) / 8000
    noise = torch.randn(3000, generator=torch.Generator().manual_seed(number))
    return 0.3 * torch.sin(2 * torch.pi * 440 * time) + 0.3 * 2 ** (-number / 4) * noise, 8000


def store(folder: Path) -> FeatureStore:
    """All clips, encoded by both encoders."""
    output = FeatureStore(folder, RewardFeatures(CLAP, MERT))
    output.extract([str(n) for n in range(CLIPS)], wave)
    return output

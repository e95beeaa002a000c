"""Mean and standard deviation of the statistics embedder's values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import save_module
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.statistics import StatisticsEmbedder

TRAINING_SEED = 4003


def train_statistics(
    weights: Path = SHIPPED_WEIGHTS / "statistics",
    clips: int = 2000,
    seconds: float = 5.0,
    batch: int = 50,
    log: Callable[[str], None] = print,
) -> StatisticsEmbedder:
    """Measure mean and standard deviation of every value on `clips` training clips, flaws included, and write them.

    Standard deviations are at least 1e-3, so that rounding errors are not scaled up to a signal.
    """
    corpus = SyntheticCorpus(clips, seconds, TRAINING_SEED)
    embedder = StatisticsEmbedder()
    parts = []
    with torch.inference_mode():
        for start in range(0, clips, batch):
            waves = np.stack([corpus.render(clip) for clip in corpus.clips[start : start + batch]])
            parts.append(embedder.statistics(torch.from_numpy(waves)))
            log(f"{min(start + batch, clips)} of {clips} clips")
    values = torch.cat(parts)
    embedder.mean.copy_(values.mean(0))
    embedder.std.copy_(values.std(0).clamp(min=1e-3))
    save_module(weights, embedder, {"name": embedder.name, "clips": clips, "seconds": seconds})
    return embedder.eval()

"""Clips of the synthetic world with the reward's features and the simulated listeners' measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plaudit.reward.features import BLOCKS, FeatureStore, RewardFeatures
from plaudit.storage import load_tensors, save_tensors
from plaudit.synthetic.clap import load_synthetic_clap
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import VotePair, sample_votes, utility
from plaudit.synthetic.probes import Measurement, load_probes, measure
from plaudit.synthetic.statistics import load_statistics
from plaudit.types import Vote

CORPUS_SEED = 7001
"""Of a corpus that no shipped model was trained on."""

FIELDS = ("genre", "mood", "instruments", "tempo", "key", "flaws")


@dataclass(frozen=True)
class World:
    """A corpus, the store of its features, and the listeners' measurements of its clips, row by row."""

    corpus: SyntheticCorpus
    store: FeatureStore
    measured: Measurement

    def utilities(self, pairs: Sequence[VotePair]) -> tuple[Tensor, Tensor]:
        """True utility of both clips of each pair for its prompt, [pairs] each."""
        row = {clip.id: index for index, clip in enumerate(self.corpus.clips)}
        truths = [pair.truth for pair in pairs]
        a, b = (
            utility(self.measured.rows(torch.tensor([row[clip.id] for clip in side])), truths)
            for side in ([pair.a for pair in pairs], [pair.b for pair in pairs])
        )
        return a, b

    def votes(self, pairs: Sequence[VotePair], seed: int) -> list[Vote]:
        """The listeners' votes on pairs."""
        return sample_votes(pairs, *self.utilities(pairs), seed)


def few_votes_batch(batch_size: int, votes: int) -> int:
    """A batch size that splits few votes into several batches, for more than one update per epoch."""
    return min(batch_size, max(16, votes // 8))


def synthetic_features() -> RewardFeatures:
    """The feature extractor of the shipped reward."""
    return RewardFeatures(load_synthetic_clap(), load_statistics(), BLOCKS)


def measure_corpus(
    corpus: SyntheticCorpus, features: RewardFeatures, folder: Path, say: Callable[[str], None] = print
) -> World:
    """Render and measure the clips of `corpus`; results are kept in `folder`, and a killed run continues."""
    probes = load_probes()
    clips = {clip.id: clip for clip in corpus.clips}

    def load(id: str) -> tuple[Tensor, int]:
        return torch.from_numpy(corpus.render(clips[id])), corpus.rate

    store = FeatureStore(folder / "features", features)
    store.extract(clips, load, shard_size=128, progress=lambda done, of: say(f"features {done}/{of}"))
    parts = []
    for start in range(0, corpus.size, 128):
        path = folder / "measured" / f"{start:06d}.safetensors"
        if not path.exists():
            part = measure(probes, torch.stack([load(clip.id)[0] for clip in corpus.clips[start : start + 128]]))
            save_tensors(path, {name: getattr(part, name) for name in FIELDS})
            say(f"listeners {min(start + 128, corpus.size)}/{corpus.size}")
        parts.append(load_tensors(path))
    return World(corpus, store, Measurement(**{name: torch.cat([part[name] for part in parts]) for name in FIELDS}))

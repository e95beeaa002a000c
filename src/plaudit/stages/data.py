"""What a stage trains on: rows of shard sets with their scores, in an order that depends on the seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from plaudit.corpus.shards import ShardSet
from plaudit.types import Posterior, TextFeatures


@dataclass(frozen=True)
class Batch:
    """posterior over [B, N, C], text features of the captions, and the clips' scores [B]."""

    posterior: Posterior
    text: TextFeatures
    scores: Tensor


@dataclass(frozen=True)
class Source:
    """Rows of a shard set with the score of each; `repeat` oversamples them."""

    shards: ShardSet
    rows: np.ndarray
    scores: np.ndarray
    repeat: int = 1


class TrainingSet:
    """Several sources as one, shuffled anew each epoch."""

    def __init__(self, sources: list[Source], seed: int) -> None:
        self.sources, self.seed = sources, seed
        self._members = np.concatenate(
            [np.stack([np.full(len(s.rows), i), np.arange(len(s.rows))], 1).repeat(s.repeat, 0)
             for i, s in enumerate(sources)]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._members)

    def batch(self, index: int, size: int) -> Batch:
        """Batch `index` of an endless stream of epochs; the same for the same seed, whatever came before."""
        epochs, offsets = np.divmod(np.arange(index * size, (index + 1) * size), len(self))
        order = [permutation(self.seed, int(e), len(self))[o] for e, o in zip(epochs, offsets, strict=True)]
        return self.take(self._members[order])

    def take(self, members: np.ndarray) -> Batch:
        """The batch of `members` [B, 2] (source, position), source by source."""
        parts = []
        for number in np.unique(members[:, 0]):
            source, positions = self.sources[number], members[members[:, 0] == number, 1]
            rows = source.rows[positions]
            parts.append((source.shards.posterior(rows), source.shards.text(rows), source.scores[positions]))
        return Batch(
            Posterior(torch.cat([p.mean for p, _, _ in parts]), torch.cat([p.std for p, _, _ in parts])),
            TextFeatures(torch.cat([t.tokens for _, t, _ in parts]), torch.cat([t.pooled for _, t, _ in parts])),
            torch.from_numpy(np.concatenate([s for _, _, s in parts])).float(),
        )


@lru_cache(4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(size)


def generator_for(seed: int, index: int) -> torch.Generator:
    """The randomness of one training batch: a generator that depends on (seed, index) alone."""
    state = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)

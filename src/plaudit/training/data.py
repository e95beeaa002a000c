"""Training data: rows of shard sets with their scores, shuffled by the seed alone, and losses on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from plaudit.backbone.base import Backbone
from plaudit.corpus.shards import ShardSet
from plaudit.flow import flow_loss, interpolate, velocity
from plaudit.types import Posterior, TextFeatures

EVERYTHING = slice(None)


@dataclass(frozen=True)
class Batch:
    """posterior over [B, N, C] and text features of the captions, both as stored (float16), the clips' scores [B]."""

    posterior: Posterior
    text: TextFeatures
    scores: Tensor


@dataclass(frozen=True)
class Source:
    """Rows of a shard set with the score of each. weight: how often a row comes in an epoch: 5 oversamples five times,
    0.3 takes a new random 30 % of the rows every epoch."""

    shards: ShardSet
    rows: np.ndarray
    scores: np.ndarray
    weight: float = 1.0

    @property
    def size(self) -> int:
        """Clips of an epoch that are of this source."""
        return round(self.weight * len(self.rows))

    def positions(self, places: np.ndarray, draw: tuple[int, ...]) -> np.ndarray:
        """Which rows (by position in `rows`) the clips at `places` in [0, size) of an epoch are.

        draw: seeds the choice of the rows that come once more than others, where the weight is no whole number.
        """
        copies = int(self.weight)
        full_size = copies * len(self.rows)
        positions = places // max(copies, 1)
        if (extra := places >= full_size).any():
            positions[extra] = permutation(draw, len(self.rows))[places[extra] - full_size]
        return positions


class TrainingSet:
    """Several sources as one endless stream of clips, reshuffled each epoch, that is a function of the seed.

    Nothing is read to shuffle. Which clips a batch holds depends on its index alone, so that training can be
    resumed anywhere, on any number of processes.
    """

    def __init__(self, sources: list[Source], seed: int) -> None:
        self.sources, self.seed = sources, seed
        self._starts = np.cumsum([0, *(source.size for source in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, index: int, size: int, part: slice = EVERYTHING) -> Batch:
        """The clips at `part` of batch `index` of the stream, batches being of `size`."""
        return self.take(self.members(index, size)[part])

    def members(self, index: int, size: int) -> np.ndarray:
        """(source, position in its rows) [size, 2] of batch `index`; clips of a source stand together."""
        members = np.empty((size, 2), dtype=np.int64)
        epochs, offsets = np.divmod(np.arange(index * size, (index + 1) * size), len(self))
        for epoch in range(epochs[0], epochs[-1] + 1):
            here = epochs == epoch
            places = permutation((self.seed, epoch), len(self))[offsets[here]]
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            positions = places - self._starts[numbers]
            for number in np.unique(numbers):
                of = numbers == number
                draw = (self.seed, epoch, int(number))
                positions[of] = self.sources[number].positions(positions[of], draw)
            members[here] = np.stack([numbers, positions], 1)
        return members[np.argsort(members[:, 0], kind="stable")]

    def take(self, members: np.ndarray) -> Batch:
        """The batch of `members` [B, 2] (source, position), which stand source by source."""
        parts = []
        for number in np.unique(members[:, 0]):
            source, positions = self.sources[number], members[members[:, 0] == number, 1]
            rows = source.rows[positions]
            stored = source.shards.posterior(rows, torch.float16), source.shards.text(rows, torch.float16)
            parts.append((*stored, torch.from_numpy(source.scores[positions]).float()))
        if len(parts) == 1:  # one source, the usual case: the batch as it was read
            return Batch(*parts[0])
        posteriors, texts, scores = zip(*parts, strict=True)
        return Batch(
            Posterior(torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])),
            TextFeatures.cat(texts),
            torch.cat(scores),
        )


@lru_cache(8)
def permutation(draw: tuple[int, ...], size: int) -> np.ndarray:
    """A random order of `size` things that depends on the numbers `draw` alone, such as (seed, epoch)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(draw))).permutation(size)


def generator_for(seed: int, index: int) -> torch.Generator:
    """The randomness of one training batch: a generator that depends on (seed, index) alone."""
    state = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def draw_latents(model: Backbone, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Standardized latents [B, N, C] from a posterior as stored and standard normal noise."""
    return model.standardize(mean.float() + std.float() * noise)


BINS = 10
"""Bins of equal width that the time from data (0) to noise (1) is cut into (ours)."""

SEED = 20260
"""Of the noise and the times, which are the same at every call, in every run."""


@torch.inference_mode()
def validation_losses(model: Backbone, source: Source, clips: int, batch: int) -> dict[str, float]:
    """Flow loss of the first `clips` of `source` with their scores and texts, and its mean in each bin of time.

    Clip i is evaluated at one time, evenly spaced within bin i mod `BINS`, with its noise, so that two calls
    differ by the weights alone. Keys: "loss", which weighs the bins equally, and "loss_0.0" ... "loss_0.9" by the
    bin's lower edge; a bin that no clip fell into is left out.
    """
    device = model.latent_mean.device
    rows = source.rows[:clips]
    numbers = torch.arange(len(rows))
    times = (numbers % BINS + (numbers // BINS + 0.5) / (len(rows) // BINS + 1)) / BINS
    losses = []
    for start in range(0, len(rows), batch):
        part = slice(start, min(start + batch, len(rows)))
        posterior, text = source.shards.posterior(rows[part]), source.shards.text(rows[part])
        scores = torch.from_numpy(source.scores[part]).float().to(device)
        generator = generator_for(SEED, start)
        drawn, noise = (torch.randn(posterior.mean.shape, generator=generator).to(device) for _ in range(2))
        latents = draw_latents(model, posterior.mean.to(device), posterior.std.to(device), drawn)
        t = times[part].to(device)
        scored = model.config.injection != "none"
        predicted = model(interpolate(latents, noise, t), text.to(device), t, scores if scored else None)
        losses.append(flow_loss(predicted, velocity(latents, noise)).float().cpu())
    values = torch.cat(losses)
    by_bin = {b: float(values[numbers % BINS == b].mean()) for b in range(BINS) if bool((numbers % BINS == b).any())}
    return {"loss": sum(by_bin.values()) / len(by_bin)} | {f"loss_{b / BINS:.1f}": v for b, v in by_bin.items()}

"""A shard set: posteriors and text features of a corpus on disk, memory-mapped, read in any order.

The folder holds `index.parquet` (id, source, caption, caption_row, reward, split, shard, row),
`latents-00000.safetensors` ... (mean and std, float16 [n, N, C]), `captions-00000.safetensors` ... (tokens and pooled,
float16, one row per distinct caption), `stats.json`, `quarantine.jsonl`, and `shards.json` with the size and SHA-256
of all of these. `plaudit.corpus.shards` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from plaudit.corpus.ledger import INDEX, LEDGER, STATS, damage_of, read_ledger
from plaudit.errors import CorpusError
from plaudit.types import Posterior, TextFeatures


class ShardSet:
    """An encoded corpus, row by row in the order of its entries, quarantined ones left out.

    frames (N) and latent_dim (C) are the posteriors' shape; latent_mean and latent_std are float32 [C] over the train
    split. `verify=False` skips the checksums, which cost a second per gigabyte or so, but not the sizes.
    Raises CorpusError, naming the file, where the folder is unfinished, damaged or no shard set.
    """

    def __init__(self, folder: Path | str, verify: bool = True) -> None:
        self.folder = Path(folder)
        ledger = read_ledger(self.folder)
        if not ledger:
            raise CorpusError(f"{self.folder} is not a shard set (it has no {LEDGER}); check the path")
        if INDEX not in ledger:
            raise CorpusError(f"{self.folder} is not finished; run its encoding again, finished shards are kept")
        for name, facts in ledger.items():
            damage = damage_of(self.folder / name, facts, checksum=verify)
            if damage:
                raise CorpusError(f"{self.folder / name} {damage}; run its encoding again, only this file is remade")
        columns = pyarrow.parquet.read_table(self.folder / INDEX).to_pydict()
        self.ids: list[str] = columns["id"]
        self.captions: list[str] = columns["caption"]
        self.splits: list[str] = columns["split"]
        self.sources: list[str] = columns["source"]
        self.rewards = np.array([np.nan if r is None else r for r in columns["reward"]], dtype=np.float64)
        self._shard = np.array(columns["shard"], dtype=np.int64)
        self._row = np.array(columns["row"], dtype=np.int64)
        self._caption_row = np.array(columns["caption_row"], dtype=np.int64)
        self.stats: dict[str, Any] = json.loads((self.folder / STATS).read_bytes())
        self.frames: int = self.stats["frames"]
        self.latent_dim: int = self.stats["latent_dim"]
        self.latent_mean = torch.tensor(self.stats["latent_mean"], dtype=torch.float32)
        self.latent_std = torch.tensor(self.stats["latent_std"], dtype=torch.float32)
        self._latents = _Mapped([self.folder / n for n in sorted(ledger) if n.startswith("latents-")])
        self._texts = _Mapped([self.folder / n for n in sorted(ledger) if n.startswith("captions-")])
        counts = [self._texts.rows(shard, "pooled") for shard in range(len(self._texts))]
        self._caption_starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> np.ndarray:
        """The rows of one split, ascending: int64 [M]."""
        return np.flatnonzero(np.array(self.splits) == split)

    def posterior(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Posterior:
        """Posterior of the clips at `rows` [M], as they come out of the codec: [M, N, C].

        In float16, as they are stored, nothing is copied but the rows themselves.
        """
        shards, places = self._shard[rows], self._row[rows]
        mean, std = (self._latents.take(name, shards, places) for name in ("mean", "std"))
        return Posterior(mean.to(dtype), std.to(dtype))

    def text(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> TextFeatures:
        """Features of the captions of the clips at `rows` [M]: [M, L, D] and [M, P]."""
        wanted = self._caption_row[rows]
        shards = np.searchsorted(self._caption_starts, wanted, side="right") - 1
        places = wanted - self._caption_starts[shards]
        tokens, pooled = (self._texts.take(name, shards, places) for name in ("tokens", "pooled"))
        return TextFeatures(tokens.to(dtype), pooled.to(dtype))


class _Mapped:
    """Tensors of several safetensors files, mapped into memory when first asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._open: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self, shard: int, name: str) -> int:
        return self._array(shard, name).shape[0]

    def take(self, name: str, shards: np.ndarray, places: np.ndarray) -> Tensor:
        """Row places[i] of file shards[i], for all i: [M, ...], as stored."""
        like = self._array(int(shards[0]) if len(shards) else 0, name)
        out = np.empty((len(shards), *like.shape[1:]), like.dtype)
        # Row by row: of a shuffled corpus each row lies in another file, and gathering by file would copy twice.
        for i, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            out[i] = self._array(shard, name)[place]
        return torch.from_numpy(out)

    def _array(self, shard: int, name: str) -> np.ndarray:
        if (shard, name) not in self._open:
            try:
                # On the CPU the tensor is a view of the mapped file: only the pages of rows asked for are read.
                with safe_open(self._paths[shard], framework="pt") as file:
                    self._open[shard, name] = file.get_tensor(name).numpy()
            except (SafetensorError, OSError) as error:
                raise CorpusError(f"{self._paths[shard]} is damaged ({error}); run its encoding again") from None
        return self._open[shard, name]

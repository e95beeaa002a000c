"""Clip features on disk: extracted once for each clip, however many votes it is in, and however often interrupted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.assets import load_tensors, read_json, save_tensors, write_json
from plaudit.errors import AudioError, CorpusError, ModelError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.recording import check_wave

BATCH_SECONDS = 160.0
"""Seconds of audio after which a batch is full whatever the number of its clips (ours)."""

SHARD_SECONDS = 3000.0
"""Seconds of audio after which a shard is written (ours): with full-length tracks, some ten of them."""

PROGRESS_EVERY = 1.0
"""Seconds between reports of progress within a shard (ours)."""


class FeatureStore:
    """A folder of `features-00000.safetensors`, ... and `index.json`, read by clip id.

    A shard counts once the index names it with its checksum, so a run killed at any moment loses at most the shard it
    was making, and continues with the same shards as a run never killed. A shard that is missing or damaged is dropped
    when the folder is opened: its clips are extracted again. CorpusError for a folder made with other encoders.
    """

    def __init__(self, folder: Path, features: RewardFeatures) -> None:
        self.folder, self.features = folder, features
        self._tensors: dict[str, Tensor] = {}
        self._index: dict[str, Any] = {"encoders": features.clip_identity, "shards": [], "quarantine": {}}
        if (folder / "index.json").exists():
            try:
                index = read_json(folder / "index.json")
                made_with = index["encoders"]
                index["shards"] = [shard for shard in index["shards"] if self._intact(shard)]
            except (ModelError, KeyError, TypeError):
                raise CorpusError(f"{folder}/index.json is damaged; delete the folder to extract again") from None
            if made_with != features.clip_identity:
                raise CorpusError(
                    f"{folder} holds features of {made_with}, not of {features.clip_identity}; use another folder"
                )
            self._index = index
        self._place = {id: (s["file"], row) for s in self._index["shards"] for row, id in enumerate(s["ids"])}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, id: str) -> bool:
        return id in self._place

    @property
    def quarantine(self) -> dict[str, str]:
        """Clips that could not be heard, and why."""
        return dict(self._index["quarantine"])

    def extract(
        self,
        ids: Iterable[str],
        load: Callable[[str], tuple[Tensor, int]],
        shard_size: int = 256,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Extract the features of the clips among `ids` that are not here yet; load(id) gives a waveform and its rate.

        A clip whose waveform is unusable (AudioError) is quarantined and the rest goes on; the next call tries it
        again. A shard has at most `shard_size` clips, and is full after SHARD_SECONDS of audio. progress(done, of) is
        called after every shard, and after a batch where the last call was a while ago.
        """
        distinct = list(dict.fromkeys(ids))
        done, reported = 0, time.monotonic()

        def advance(count: int, whole: bool) -> None:
            nonlocal done, reported
            done += count
            if progress is not None and (whole or time.monotonic() - reported >= PROGRESS_EVERY):
                reported = time.monotonic()
                progress(done, len(distinct))

        # Clips are assigned to shards regardless of what is here already, so that a run that was killed ends with the
        # shards of one that was not. Clips that were unusable before are in none of them.
        again = [id for id in distinct if id in self._index["quarantine"] and id not in self]
        for start in range(0, len(distinct), shard_size):
            fresh = [id for id in distinct[start : start + shard_size] if id not in again]
            for here, run in groupby(fresh, key=self.__contains__):
                if here:
                    advance(len(list(run)), False)
                else:
                    self._extract(list(run), load, batch_size, advance)
        self._extract(again, load, batch_size, advance)

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Features [n, clip_dim] of the clips, in the order given; CorpusError for one that is not here."""
        out = torch.empty(len(ids), self.features.clip_dim)
        wanted: dict[str, list[tuple[int, int]]] = {}
        for position, id in enumerate(ids):
            if id not in self._place:
                reason = self._index["quarantine"].get(id, "not extracted yet")
                raise CorpusError(f"{self.folder} has no features of clip {id!r}: {reason}")
            file, row = self._place[id]
            wanted.setdefault(file, []).append((position, row))
        for file, pairs in wanted.items():
            positions, source = (torch.tensor(column) for column in zip(*pairs, strict=True))
            out[positions] = self._shard(file)[source]
        return out

    def _extract(
        self,
        ids: list[str],
        load: Callable[[str], tuple[Tensor, int]],
        batch_size: int,
        advance: Callable[[int, bool], None],
    ) -> None:
        """Make shards of these clips."""
        heard: list[str] = []
        rows: list[Tensor] = []
        batch: list[tuple[str, Tensor, int]] = []
        tried, in_batch, in_shard = 0, 0.0, 0.0
        for number, id in enumerate(ids, start=1):
            clip = self._loaded(id, load)
            tried += 1
            if clip is not None:
                batch.append(clip)
                seconds = clip[1].shape[-1] / clip[2]
                in_batch, in_shard = in_batch + seconds, in_shard + seconds
            last, full = number == len(ids), in_shard >= SHARD_SECONDS
            if len(batch) == batch_size or in_batch >= BATCH_SECONDS or full or last:
                for rate in dict.fromkeys(rate for _, _, rate in batch):
                    group = [(id, wave) for id, wave, own_rate in batch if own_rate == rate]
                    with torch.inference_mode():
                        rows.append(self.features.clip_features([wave for _, wave in group], rate).cpu())
                    heard += [id for id, _ in group]
                batch, in_batch = [], 0.0
                if full or last:
                    self._add(heard, rows)
                    heard, rows, in_shard = [], [], 0.0
                advance(tried, full or last)
                tried = 0

    def _loaded(self, id: str, load: Callable[[str], tuple[Tensor, int]]) -> tuple[str, Tensor, int] | None:
        """A clip, or None for one that goes to quarantine."""
        try:
            wave, rate = load(id)
            check_wave(wave, f"clip {id!r}")
        except AudioError as error:
            self._index["quarantine"][id] = str(error)
            return None
        self._index["quarantine"].pop(id, None)
        return id, wave, rate

    def _add(self, ids: list[str], rows: list[Tensor]) -> None:
        if ids:
            taken = {shard["file"] for shard in self._index["shards"]}
            number = next(n for n in range(len(taken) + 1) if f"features-{n:05d}.safetensors" not in taken)
            file = f"features-{number:05d}.safetensors"
            save_tensors(self.folder / file, {"features": torch.cat(rows)})
            self._index["shards"].append({"file": file, "sha256": _sha256(self.folder / file), "ids": ids})
            self._tensors.pop(file, None)
            self._place |= {id: (file, row) for row, id in enumerate(ids)}
        write_json(self.folder / "index.json", self._index)

    def _intact(self, shard: dict[str, Any]) -> bool:
        path = self.folder / shard["file"]
        return path.is_file() and _sha256(path) == shard["sha256"]

    def _shard(self, file: str) -> Tensor:
        if file not in self._tensors:
            self._tensors[file] = load_tensors(self.folder / file)["features"]
        return self._tensors[file]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

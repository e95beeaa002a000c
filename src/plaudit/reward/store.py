"""Clip features on disk: every clip is heard once, whatever the number of votes it is in and however often killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.assets import load_tensors, read_json, save_tensors, write_json
from plaudit.errors import AudioError, CorpusError, ModelError
from plaudit.reward.features import RewardFeatures
from plaudit.reward.recording import check_wave


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
        """Hear the clips among `ids` that are not here yet; load(id) gives a waveform [T] and its rate.

        A clip whose waveform is unusable (AudioError) is quarantined and the rest goes on; the next call tries it
        again. progress(done, of) is called after every shard.
        """
        distinct = list(dict.fromkeys(ids))
        for start in range(0, len(distinct), shard_size):
            # Cut before leaving out what is here, so that a run that was killed makes the shards it would have made.
            chunk = [id for id in distinct[start : start + shard_size] if id not in self._place]
            if not chunk:
                continue
            heard: list[str] = []
            rows: list[Tensor] = []
            for first in range(0, len(chunk), batch_size):
                clips = self._loaded(chunk[first : first + batch_size], load)
                for rate in dict.fromkeys(rate for _, _, rate in clips):
                    group = [(id, wave) for id, wave, own_rate in clips if own_rate == rate]
                    with torch.inference_mode():
                        rows.append(self.features.clip_features([wave for _, wave in group], rate).cpu())
                    heard += [id for id, _ in group]
            self._add(heard, rows)
            if progress is not None:
                progress(min(start + shard_size, len(distinct)), len(distinct))

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

    def _loaded(self, ids: list[str], load: Callable[[str], tuple[Tensor, int]]) -> list[tuple[str, Tensor, int]]:
        clips = []
        for id in ids:
            try:
                wave, rate = load(id)
                check_wave(wave, f"clip {id!r}")
            except AudioError as error:
                self._index["quarantine"][id] = str(error)
            else:
                self._index["quarantine"].pop(id, None)
                clips.append((id, wave, rate))
        return clips

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

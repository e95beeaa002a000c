"""The features that the reward's head is trained on, and their store on disk."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.errors import AudioError, CorpusError, ModelError
from plaudit.reward.base import Recording, View, check_wave
from plaudit.storage import load_tensors, read_json, save_tensors, write_json
from plaudit.types import AudioEmbedder, Embedder

CLAP_SECONDS = 10.0
SEGMENT_SECONDS = 300.0
"""The second listener hears longer tracks in segments of this length (TuneJury)."""

SHORTEST_REST = 1.0
"""A rest shorter than this many seconds stays with the segment before it: encoders need something to hear (ours)."""

PUBLISHED_BLOCKS = ("clap_audio", "audio", "clap_text")
BLOCKS = (*PUBLISHED_BLOCKS, "clap_match")


class RewardFeatures:
    """Blocks of features, concatenated in the order named; TuneJury's are CLAP audio, MERT and CLAP text.

    clap_audio: CLAP's embedding of the centre 10 s (a shorter clip whole). audio: the second listener's, of the whole
    clip; of one over 300 s, the mean over its segments, weighted by their lengths. clap_text: CLAP's embedding of the
    prompt. clap_match (ours): clap_audio times clap_text, channel by channel, whose sum is their cosine; a small set
    of votes does not teach a plain network to multiply.
    Without a prompt, clap_text and clap_match are zeros, not the encoding of the empty string.
    """

    def __init__(self, clap: Embedder, audio: AudioEmbedder, blocks: Sequence[str] = PUBLISHED_BLOCKS) -> None:
        unknown = [block for block in blocks if block not in BLOCKS]
        if unknown or not blocks or len(set(blocks)) < len(blocks):
            raise ModelError(f"reward blocks {list(blocks)} must be one or more distinct of {', '.join(BLOCKS)}")
        self.clap, self.listener, self.blocks = clap, audio, tuple(blocks)
        needs_clap = any(block in ("clap_audio", "clap_match") for block in blocks)
        self._clip_dims = {"clap_audio": clap.dim * needs_clap, "audio": audio.dim * ("audio" in blocks)}
        self.clip_dim = sum(self._clip_dims.values())
        self.dim = sum(audio.dim if block == "audio" else clap.dim for block in self.blocks)

    @property
    def clip_identity(self) -> dict[str, str]:
        """What clip features depend on: two with the same identity may share a FeatureStore."""
        embedders = {"clap_audio": self.clap, "audio": self.listener}
        used = {part: embedder for part, embedder in embedders.items() if self._clip_dims[part]}
        return {part: f"{embedder.name}, {embedder.dim}" for part, embedder in used.items()}

    def columns_of(self, heard: RewardFeatures) -> Tensor:
        """Which columns of heard.clip_features are this one's clip_features, so that a subset needs no new extraction.

        ModelError where `heard` lacks a block that this one needs, or has it from another encoder.
        """
        theirs, own = heard.clip_identity, self.clip_identity
        if any(theirs.get(part) != own[part] for part in own):
            raise ModelError(f"the reward is to hear {own}, but {theirs} were extracted; use another features folder")
        starts = {"clap_audio": 0, "audio": heard._clip_dims["clap_audio"]}
        return torch.cat([torch.arange(width) + starts[part] for part, width in self._clip_dims.items()])

    def clip_features(self, waves: Sequence[Tensor], rate: int) -> Tensor:
        """Prompt-free part: waves [T] each, of any lengths, at `rate` Hz -> [B, clip_dim].

        Differentiable in the waves where the encoders are. AudioError for a clip that is empty, silent or not finite,
        naming its place.
        """
        return self.recording_features([Recording(wave, rate, f"clip {index}") for index, wave in enumerate(waves)])

    @property
    def views(self) -> tuple[View, ...]:
        """The forms in which the encoders hear a recording."""
        heard = {"clap_audio": View(self.clap.sample_rate, CLAP_SECONDS), "audio": View(self.listener.sample_rate)}
        return tuple(view for part, view in heard.items() if self._clip_dims[part])

    def recording_features(self, recordings: Sequence[Recording]) -> Tensor:
        """The same of recordings [B] at any rates -> [B, clip_dim]."""
        parts = []
        if self._clip_dims["clap_audio"]:
            centres = View(self.clap.sample_rate, CLAP_SECONDS)
            parts.append(embed_batched(self.clap, [recording.heard(centres) for recording in recordings]))
        if self._clip_dims["audio"]:
            all_of_it = View(self.listener.sample_rate)
            parts.append(embed_whole(self.listener, [recording.heard(all_of_it) for recording in recordings]))
        return torch.cat(parts, dim=-1) if parts else torch.zeros(len(recordings), 0)

    def with_prompts(self, clip_features: Tensor, prompts: Sequence[str]) -> Tensor:
        """clip_features [B, clip_dim] and their prompts -> the head's input [B, dim]."""
        clap_audio, audio = clip_features.split(list(self._clip_dims.values()), dim=-1)
        parts = {"clap_audio": clap_audio, "audio": audio}
        if "clap_text" in self.blocks or "clap_match" in self.blocks:
            parts["clap_text"] = self._prompt_features(prompts).to(clip_features)
        if "clap_match" in self.blocks:
            parts["clap_match"] = clap_audio * parts["clap_text"]
        return torch.cat([parts[block] for block in self.blocks], dim=-1)

    def _prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """[B, clap.dim]; each distinct prompt is read once."""
        distinct = sorted({prompt for prompt in prompts if prompt})
        rows = {prompt: row for row, prompt in enumerate(distinct, start=1)}
        table = torch.zeros(len(distinct) + 1, self.clap.dim)
        with torch.inference_mode():
            for start in range(0, len(distinct), 256):
                chunk = distinct[start : start + 256]
                table[1 + start : 1 + start + len(chunk)] = self.clap.text(chunk).float().cpu()
        return table[[rows.get(prompt, 0) for prompt in prompts]]


def segments(samples: int, rate: int) -> list[int]:
    """Lengths of the segments of SEGMENT_SECONDS that a track of `samples` is heard in; the last is what is left."""
    full = round(SEGMENT_SECONDS * rate)
    whole, rest = divmod(samples, full)
    lengths = [full] * whole
    if not lengths or rest >= SHORTEST_REST * rate:
        return [*lengths, rest] if rest else lengths
    return [*lengths[:-1], full + rest]


def embed_whole(listener: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, listener.dim] of waves [T] at its rate: the mean over their segments, weighted by their lengths."""
    lengths = [segments(wave.shape[-1], listener.sample_rate) for wave in waves]
    pieces = [piece for wave, cut in zip(waves, lengths, strict=True) for piece in wave.split(cut)]
    heard = embed_batched(listener, pieces).split([len(cut) for cut in lengths])
    weights = [torch.tensor(cut, dtype=torch.float64) / sum(cut) for cut in lengths]
    return torch.stack([weight.to(rows) @ rows for weight, rows in zip(weights, heard, strict=True)])


def embed_batched(embedder: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, embedder.dim] of waves [T] at its rate. Only clips of the same length share a batch: padding is heard."""
    rows_of_length: dict[int, list[int]] = defaultdict(list)
    for row, wave in enumerate(waves):
        rows_of_length[wave.shape[-1]].append(row)
    pieces = [embedder.audio(torch.stack([waves[row] for row in rows])) for rows in rows_of_length.values()]
    order = torch.tensor([row for rows in rows_of_length.values() for row in rows])
    return torch.cat(pieces).float()[torch.argsort(order)]


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

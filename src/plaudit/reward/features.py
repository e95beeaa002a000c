"""The features that the reward's head is trained on, and their store on disk."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.devices import batched, device_of, placed, rows_at_once
from plaudit.errors import AudioError, CorpusError, ModelError
from plaudit.prefetch import prefetch
from plaudit.reward.base import Recording, View, check_wave
from plaudit.storage import file_digest, load_tensors, read_json, save_tensors, write_json
from plaudit.types import AudioEmbedder, Embedder

CLAP_SECONDS = 10.0
SEGMENT_SECONDS = 300.0
"""The second audio encoder takes longer tracks in segments of this length (TuneJury)."""

SHORTEST_SEGMENT = 1.0
"""A last segment shorter than this many seconds is joined to the one before it (ours)."""

PUBLISHED_BLOCKS = ("clap_audio", "audio", "clap_text")
BLOCKS = (*PUBLISHED_BLOCKS, "clap_match")


class RewardFeatures:
    """Blocks of features, concatenated in the order named; TuneJury's are CLAP audio, MERT and CLAP text.

    clap_audio: CLAP's embedding of the centre 10 s (a shorter clip whole). audio: the second audio encoder's, of the
    whole clip; over 300 s, the mean over segments, weighted by their lengths. clap_text: CLAP's embedding of the
    prompt. clap_match (ours): clap_audio times clap_text, channel by channel, whose sum is their cosine; a network
    does not learn products from few votes.
    Without a prompt, clap_text and clap_match are zeros, not the encoding of the empty string.

    clap_through: a rate in Hz that CLAP's audio is resampled to first; 16 kHz in the published training.
    """

    def __init__(
        self,
        clap: Embedder,
        audio: AudioEmbedder,
        blocks: Sequence[str] = PUBLISHED_BLOCKS,
        clap_through: int | None = None,
    ) -> None:
        unknown = [block for block in blocks if block not in BLOCKS]
        if unknown or not blocks or len(set(blocks)) < len(blocks):
            raise ModelError(f"reward blocks {list(blocks)} must be one or more distinct of {', '.join(BLOCKS)}")
        self.clap, self.audio_encoder, self.blocks = clap, audio, tuple(blocks)
        self.clap_through = None if clap_through == clap.sample_rate else clap_through
        needs_clap = any(block in ("clap_audio", "clap_match") for block in blocks)
        self._clip_dims = {"clap_audio": clap.dim * needs_clap, "audio": audio.dim * ("audio" in blocks)}
        self.clip_dim = sum(self._clip_dims.values())
        self.dim = sum(audio.dim if block == "audio" else clap.dim for block in self.blocks)

    def to(self, device: torch.device) -> RewardFeatures:
        """Both encoders on `device`; features stay on the CPU."""
        self.clap, self.audio_encoder = placed(self.clap, device), placed(self.audio_encoder, device)
        return self

    @property
    def device(self) -> torch.device:
        """Where its encoders compute."""
        return device_of(self.clap)

    @property
    def clip_identity(self) -> dict[str, str]:
        """A digest of everything that clip features depend on: two with the same identity may share a FeatureStore."""
        embedders = {"clap_audio": self.clap, "audio": self.audio_encoder}
        used = {part: embedder for part, embedder in embedders.items() if self._clip_dims[part]}
        identity = {part: f"{embedder.name}, {embedder.dim}" for part, embedder in used.items()}
        if self.clap_through and "clap_audio" in identity:
            identity["clap_audio"] += f", through {self.clap_through} Hz"
        return identity

    def is_part_of(self, stored: RewardFeatures) -> bool:
        """Whether stored.clip_features hold this one's, of the same encoders."""
        theirs, ours = stored.clip_identity, self.clip_identity
        return all(theirs.get(part) == ours[part] for part in ours)

    def columns_of(self, stored: RewardFeatures) -> Tensor:
        """The columns of stored.clip_features that are this one's clip_features: a subset needs no new extraction.

        ModelError where `stored` lacks a block that this one needs, or has it from another encoder.
        """
        theirs, ours = stored.clip_identity, self.clip_identity
        if not self.is_part_of(stored):
            raise ModelError(f"the reward needs {ours}, but {theirs} were extracted; use another features folder")
        starts = {"clap_audio": 0, "audio": stored._clip_dims["clap_audio"]}
        return torch.cat([torch.arange(width) + starts[part] for part, width in self._clip_dims.items()])

    def clip_features(self, waves: Sequence[Tensor], rate: int) -> Tensor:
        """The part without prompts: waves [T] each, of any lengths, at `rate` Hz -> [B, clip_dim].

        Differentiable in the waves where the encoders are. AudioError for a clip that is empty, silent or not finite,
        naming its place.
        """
        return self.recording_features([Recording(wave, rate, f"clip {index}") for index, wave in enumerate(waves)])

    @property
    def views(self) -> tuple[View, ...]:
        """The rates and lengths at which the encoders take a recording."""
        return tuple(view for part, view in self._views.items() if self._clip_dims[part])

    @property
    def _views(self) -> dict[str, View]:
        clap, audio = self.clap.sample_rate, self.audio_encoder.sample_rate
        return {"clap_audio": View(clap, CLAP_SECONDS, self.clap_through), "audio": View(audio)}

    def recording_features(self, recordings: Sequence[Recording]) -> Tensor:
        """The same of recordings [B] at any rates -> [B, clip_dim]."""
        parts = []
        for part, encoder, embed in (
            ("clap_audio", self.clap, embed_batched),
            ("audio", self.audio_encoder, embed_whole),
        ):
            if self._clip_dims[part]:
                parts.append(embed(encoder, [recording.view(self._views[part]) for recording in recordings]))
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
        """[B, clap.dim]; each distinct prompt is encoded once."""
        distinct = sorted({prompt for prompt in prompts if prompt})
        rows = {prompt: row for row, prompt in enumerate(distinct, start=1)}
        table = torch.zeros(len(distinct) + 1, self.clap.dim)
        with torch.inference_mode():
            for start in range(0, len(distinct), 256):
                chunk = distinct[start : start + 256]
                table[1 + start : 1 + start + len(chunk)] = batched(self.clap, self.clap.text, chunk).float()
        return table[[rows.get(prompt, 0) for prompt in prompts]]


def segments(samples: int, rate: int) -> list[int]:
    """Lengths of the segments of SEGMENT_SECONDS of a track of `samples`; the last has what remains."""
    full = round(SEGMENT_SECONDS * rate)
    count, last = divmod(samples, full)
    lengths = [full] * count
    if not lengths or last >= SHORTEST_SEGMENT * rate:
        return [*lengths, last] if last else lengths
    return [*lengths[:-1], full + last]


def embed_whole(encoder: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, encoder.dim] of waves [T] at its rate: the mean over their segments, weighted by their lengths."""
    lengths = [segments(wave.shape[-1], encoder.sample_rate) for wave in waves]
    pieces = [piece for wave, cut in zip(waves, lengths, strict=True) for piece in wave.split(cut)]
    embeddings = embed_batched(encoder, pieces).split([len(cut) for cut in lengths])
    weights = [torch.tensor(cut, dtype=torch.float64) / sum(cut) for cut in lengths]
    return torch.stack([weight.to(rows) @ rows for weight, rows in zip(weights, embeddings, strict=True)])


def embed_batched(encoder: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, encoder.dim] of waves [T] at its rate. Only clips of one length share a batch: padding would change them."""
    rows_of_length: dict[int, list[int]] = defaultdict(list)
    for row, wave in enumerate(waves):
        rows_of_length[wave.shape[-1]].append(row)
    stacked = [torch.stack([waves[row] for row in rows]) for rows in rows_of_length.values()]
    pieces = [batched(encoder, encoder.audio, same_length) for same_length in stacked]
    order = torch.tensor([row for rows in rows_of_length.values() for row in rows])
    return torch.cat(pieces).float()[torch.argsort(order)]


EXTRACTION_BATCH, EXTRACTION_BATCH_SECONDS = 16, 160.0
"""Clips encoded at once on a CPU, and the seconds of audio after which a batch is full whatever their number (ours)."""

SHARD_SECONDS = 3000.0
"""Seconds of audio after which a shard is written (ours): about ten full-length tracks."""

PROGRESS_EVERY = 1.0
"""Seconds between reports of progress within a shard (ours)."""


def _load_checked(id: str, load: Callable[[str], tuple[Tensor, int]]) -> tuple[Tensor, int] | str:
    """A clip and its rate, or why it can't be encoded."""
    try:
        wave, rate = load(id)
        check_wave(wave, f"clip {id!r}")
    except AudioError as error:
        return str(error)
    return wave, rate


def _seconds(clip: tuple[Tensor, int] | str) -> float:
    return 0.0 if isinstance(clip, str) else clip[0].shape[-1] / clip[1]


class FeatureStore:
    """A folder of `features-00000.safetensors`, ... and `index.json`, read by clip id.

    A shard counts once the index names it with its checksum, so a run killed at any moment loses at most one shard, and
    ends with the same shards as a run never killed. A shard that is missing or damaged is dropped when the folder is
    opened: its clips are extracted again. CorpusError for a folder of other encoders' features.
    """

    def __init__(self, folder: Path, features: RewardFeatures) -> None:
        self.folder, self.features = folder, features
        self._tensors: dict[str, Tensor] = {}
        self._index: dict[str, Any] = {"encoders": features.clip_identity, "shards": [], "quarantine": {}}
        if (folder / "index.json").exists():
            try:
                index = read_json(folder / "index.json")
                encoders = index["encoders"]
                index["shards"] = [shard for shard in index["shards"] if self._intact(shard)]
            except (ModelError, KeyError, TypeError):
                raise CorpusError(f"{folder}/index.json is damaged; delete the folder to extract again") from None
            if encoders != features.clip_identity:
                raise CorpusError(
                    f"{folder} holds features of {encoders}, not of {features.clip_identity}; use another folder"
                )
            self._index = index
        self._place = {id: (s["file"], row) for s in self._index["shards"] for row, id in enumerate(s["ids"])}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, id: str) -> bool:
        return id in self._place

    @property
    def quarantine(self) -> dict[str, str]:
        """Clips that cannot be encoded, and why."""
        return dict(self._index["quarantine"])

    def extract(
        self,
        ids: Iterable[str],
        load: Callable[[str], tuple[Tensor, int]],
        shard_size: int = 256,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Extract the missing features of the clips `ids`; load(id) gives a waveform and its rate.

        A clip whose waveform is unusable (AudioError) is quarantined and the others continue; the next call tries it
        again. A shard has at most `shard_size` clips, and is full after SHARD_SECONDS of audio. batch_size: by default
        16, on a GPU more; the next clips are loaded, in another thread, while a batch is encoded. progress(done, of) is
        called after every shard, and after a batch where the last call was a while ago.
        """
        batch_size = batch_size or rows_at_once(self.features, EXTRACTION_BATCH)
        distinct = list(dict.fromkeys(ids))
        done, reported = 0, time.monotonic()

        def advance(count: int, shard_done: bool) -> None:
            nonlocal done, reported
            done += count
            if progress is not None and (shard_done or time.monotonic() - reported >= PROGRESS_EVERY):
                reported = time.monotonic()
                progress(done, len(distinct))

        # Clips are assigned to shards regardless of what is stored already, so that a run that was killed ends with
        # the shards of one that was not. Clips that were unusable before are in none of them.
        again = [id for id in distinct if id in self._index["quarantine"] and id not in self]
        for start in range(0, len(distinct), shard_size):
            fresh = [id for id in distinct[start : start + shard_size] if id not in again]
            for stored, run in groupby(fresh, key=self.__contains__):
                if stored:
                    advance(len(list(run)), False)
                else:
                    self._extract(list(run), load, batch_size, advance)
        self._extract(again, load, batch_size, advance)

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Features [n, clip_dim] of the clips, in the order given; CorpusError for a missing one."""
        out = torch.empty(len(ids), self.features.clip_dim)
        by_file: dict[str, list[tuple[int, int]]] = {}
        for position, id in enumerate(ids):
            if id not in self._place:
                reason = self._index["quarantine"].get(id, "not extracted yet")
                raise CorpusError(f"{self.folder} has no features of clip {id!r}: {reason}")
            file, row = self._place[id]
            by_file.setdefault(file, []).append((position, row))
        for file, pairs in by_file.items():
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
        """Write shards of these clips."""
        encoded: list[str] = []
        rows: list[Tensor] = []
        batch: list[tuple[str, Tensor, int]] = []
        tried, in_batch, in_shard = 0, 0.0, 0.0
        most_seconds = EXTRACTION_BATCH_SECONDS * max(1, batch_size // EXTRACTION_BATCH)
        clips = prefetch(
            partial(_load_checked, load=load), ids, depth=batch_size, threads=1, weight=_seconds, limit=most_seconds
        )
        with closing(clips) as loaded:
            for number, (id, clip) in enumerate(zip(ids, loaded, strict=True), start=1):
                tried += 1
                if isinstance(clip, str):
                    self._index["quarantine"][id] = clip
                else:
                    self._index["quarantine"].pop(id, None)
                    batch.append((id, *clip))
                    in_batch, in_shard = in_batch + _seconds(clip), in_shard + _seconds(clip)
                last, full = number == len(ids), in_shard >= SHARD_SECONDS
                if len(batch) == batch_size or in_batch >= most_seconds or full or last:
                    for rate in dict.fromkeys(rate for _, _, rate in batch):
                        group = [(id, wave) for id, wave, clip_rate in batch if clip_rate == rate]
                        with torch.inference_mode():
                            rows.append(self.features.clip_features([wave for _, wave in group], rate))
                        encoded += [id for id, _ in group]
                    batch, in_batch = [], 0.0
                    if full or last:
                        self._add(encoded, rows)
                        encoded, rows, in_shard = [], [], 0.0
                    advance(tried, full or last)
                    tried = 0

    def _add(self, ids: list[str], rows: list[Tensor]) -> None:
        if ids:
            used_files = {shard["file"] for shard in self._index["shards"]}
            number = next(n for n in range(len(used_files) + 1) if f"features-{n:05d}.safetensors" not in used_files)
            file = f"features-{number:05d}.safetensors"
            save_tensors(self.folder / file, {"features": torch.cat(rows)})
            self._index["shards"].append({"file": file, "sha256": file_digest(self.folder / file), "ids": ids})
            self._tensors.pop(file, None)
            self._place |= {id: (file, row) for row, id in enumerate(ids)}
        write_json(self.folder / "index.json", self._index)

    def _intact(self, shard: dict[str, Any]) -> bool:
        path = self.folder / shard["file"]
        return path.is_file() and file_digest(path) == shard["sha256"]

    def _shard(self, file: str) -> Tensor:
        if file not in self._tensors:
            self._tensors[file] = load_tensors(self.folder / file)["features"]
        return self._tensors[file]

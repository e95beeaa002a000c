"""Embeddings of clips by frozen encoders, cached by content, and the statistics of reference music.

A reference file is a safetensors file with, for each encoder, the mean and a factor of the covariance of the embeddings
(plaudit.evaluate.distances) and, if exported with them, the embeddings themselves. Its metadata hold the name of each
encoder, a digest of its weights, and the number of clips. So others can compare without the audio, and never against
another encoder's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from plaudit import __version__
from plaudit.audio import audio_under, list_audio_files, read_audio, resample
from plaudit.devices import batched, rows_at_once
from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.distances import Balls, Gaussian, gaussian
from plaudit.prefetch import prefetch
from plaudit.reporting import Progress
from plaudit.reward.base import Recording, View
from plaudit.reward.scoring import ContentCache
from plaudit.statistics import Array
from plaudit.storage import digest_of, file_digest, load_tensors, save_tensors
from plaudit.types import AudioEmbedder, Embedder

EMBEDDING_BATCH = 16
"""Clips of one length that are encoded at once on a CPU (ours)."""

AHEAD_SAMPLES = 2**26
"""Decoded samples that wait to be encoded beyond which nothing more is decoded (ours)."""

TEXT_BATCH = 256


@dataclass(frozen=True)
class AudioEncoder:
    """A frozen encoder by its name; `digest` is of its weights and configuration."""

    name: str
    digest: str
    embedder: AudioEmbedder


class EmbeddingCache(ContentCache):
    """Embeddings by the content of a file and the encoder's digest, shared by all evaluations."""

    what, column = "embeddings", "embedding BLOB"

    def get(self, content: str, encoder: AudioEncoder) -> Array | None:
        """The embedding [E] of a file of this content, or None."""
        value = self._get(_key(content, encoder))
        return None if value is None else np.frombuffer(value, dtype="<f4").astype(np.float64)

    def put(self, content: str, encoder: AudioEncoder, embedding: Array) -> None:
        """Store an embedding durably."""
        self._put([(_key(content, encoder), embedding.astype("<f4").tobytes())])


class CachedClip:
    """A clip, decoded when a metric needs it, and its embeddings, computed once.

    file: of the clip; None for one in memory. cache: of embeddings, by the file's content. keep: whether a decoded
    recording stays in memory, for the next metric.
    """

    def __init__(
        self, read: Callable[[], Recording], file: Path | None = None, cache: EmbeddingCache | None = None,
        keep: bool = True,
    ) -> None:  # fmt: skip
        self._read, self._file, self._cache, self._keep = read, file, cache, keep
        self._recording: Recording | None = None
        self._embeddings: dict[str, Array] = {}

    @property
    def file(self) -> Path:
        """The clip's file; AudioError for a clip in memory."""
        if self._file is None:
            raise AudioError("a clip in memory has no file; write it first")
        return self._file

    @property
    def recording(self) -> Recording:
        """The decoded clip; AudioError where it can't be read."""
        recording = self._read() if self._recording is None else self._recording
        if self._keep:
            self._recording = recording
        return recording

    def wave(self, rate: int) -> torch.Tensor:
        """The waveform [1, T] at `rate` Hz."""
        return self.recording.view(View(rate))[None]

    @cached_property
    def _content(self) -> str:
        return content_digest(self._file) if self._cache is not None and self._file is not None else ""

    def known_embedding(self, encoder: AudioEncoder) -> Array | None:
        """The embedding [E] where it was computed before."""
        if encoder.digest not in self._embeddings and self._cache is not None and self._content:
            cached = self._cache.get(self._content, encoder)
            if cached is not None:
                self._embeddings[encoder.digest] = cached
        return self._embeddings.get(encoder.digest)

    def set_embedding(self, encoder: AudioEncoder, embedding: Array) -> None:
        """Keep an embedding; AudioError where it is not finite."""
        if not np.isfinite(embedding).all():
            raise AudioError(f"its embedding by {encoder.name} is not finite; check the audio")
        self._embeddings[encoder.digest] = embedding
        if self._cache is not None and self._content:
            self._cache.put(self._content, encoder, embedding)

    def embedding(self, encoder: AudioEncoder) -> Array:
        """The embedding [E]; AudioError where the clip can't be read or the embedding is not finite."""
        cached = self.known_embedding(encoder)
        if cached is None:
            self.set_embedding(encoder, _encode(encoder, self.wave(encoder.embedder.sample_rate))[0])
        return self._embeddings[encoder.digest]


def clip_from_file(file: Path, cache: EmbeddingCache | None = None, keep: bool = True) -> CachedClip:
    """The clip in an audio file, decoded once it is needed."""

    def read() -> Recording:
        try:
            wave, rate = read_audio(file)
        except OSError as error:
            raise AudioError(f"{file} cannot be read ({error.strerror}); check the file") from None
        return Recording(torch.from_numpy(wave), rate, str(file))

    return CachedClip(read, file, cache, keep)


def clip_from_wave(wave: torch.Tensor, rate: int, name: str) -> CachedClip:
    """The clip in a waveform [T] at `rate` Hz; AudioError where it is not finite, empty or silent."""
    recording = Recording(wave, rate, name)
    return CachedClip(lambda: recording)


def embed_clips(
    clips: Sequence[CachedClip],
    encoder: AudioEncoder,
    failures: dict[int, str],
    progress: Progress = lambda done, total: None,
) -> Array:
    """Embeddings [n, E] of clips, those of one length in batches; a clip without one has NaN and is in `failures`."""
    waiting: dict[int, list[tuple[int, torch.Tensor]]] = {}  # by length

    def encode(batch: list[tuple[int, torch.Tensor]]) -> None:
        try:
            rows = _encode(encoder, torch.cat([wave for _, wave in batch]))
        except AudioError as error:  # of their length, which is the same
            failures.update((place, str(error)) for place, _ in batch)
            return
        for (place, _), embedding in zip(batch, rows, strict=True):
            try:
                clips[place].set_embedding(encoder, embedding)
            except AudioError as error:
                failures[place] = str(error)

    def load(clip: CachedClip) -> torch.Tensor | str | None:
        """The waveform, why there is none, or None where it is not needed."""
        try:
            return None if clip.known_embedding(encoder) is not None else clip.wave(encoder.embedder.sample_rate)
        except AudioError as error:
            return str(error)

    most = rows_at_once(encoder.embedder, EMBEDDING_BATCH)
    with closing(prefetch(load, clips, depth=most, threads=1, weight=_samples, limit=AHEAD_SAMPLES)) as loaded:
        for place, wave in enumerate(loaded):
            if isinstance(wave, str):
                failures[place] = wave
            elif wave is not None:
                waiting.setdefault(wave.shape[1], []).append((place, wave))
                if len(waiting[wave.shape[1]]) == most:
                    encode(waiting.pop(wave.shape[1]))
                elif len(waiting) > EMBEDDING_BATCH:  # of many lengths, not all wait in memory
                    encode(waiting.pop(next(iter(waiting))))
            progress(place + 1, len(clips))
    for batch in waiting.values():
        encode(batch)
    rows = [clip.known_embedding(encoder) for clip in clips]
    width = next((len(row) for row in rows if row is not None), 0)
    return np.stack([np.full(width, np.nan) if row is None else row for row in rows])


def _samples(loaded: torch.Tensor | str | None) -> float:
    return loaded.numel() if isinstance(loaded, torch.Tensor) else 0.0


def embed_waves(
    embedder: AudioEmbedder, waves: Sequence[torch.Tensor], rate: int, batch_size: int | None = None
) -> Array:
    """Embeddings [n, E] of waveforms [T] at `rate` Hz, those of one length in batches."""
    batch_size = batch_size or rows_at_once(embedder, EMBEDDING_BATCH)
    resampled = [torch.from_numpy(resample(wave.float().cpu().numpy(), rate, embedder.sample_rate)) for wave in waves]
    by_length: dict[int, list[int]] = {}
    for index, wave in enumerate(resampled):
        by_length.setdefault(len(wave), []).append(index)
    embeddings = np.empty((len(resampled), embedder.dim))
    with torch.inference_mode():
        for indices in by_length.values():
            for start in range(0, len(indices), batch_size):
                batch = indices[start : start + batch_size]
                stacked = torch.stack([resampled[index] for index in batch])
                embeddings[batch] = _array(batched(embedder, embedder.audio, stacked))
    return embeddings


def embed_recordings(
    embedder: AudioEmbedder, count: int, recordings: Iterable[tuple[np.ndarray, int]], progress: Progress
) -> Array:
    """Embeddings [count, E] of recordings, (waveform [T], rate) each, on a CPU one after the other. The next are loaded
    meanwhile."""
    rows, most, source = list[Array](), rows_at_once(embedder, 1), iter(recordings)
    waiting = list[tuple[np.ndarray, int]]()
    with closing(prefetch(lambda _: next(source), range(count), depth=most, threads=1)) as loaded:
        for done, recording in enumerate(loaded, start=1):
            waiting.append(recording)
            if len(waiting) == most or done == count:
                for rate, group in groupby(waiting, key=itemgetter(1)):
                    rows.append(embed_waves(embedder, [torch.from_numpy(wave) for wave, _ in group], rate))
                waiting = []
                progress(done, count)
    return np.concatenate(rows)


def embed_prompts(clap: AudioEncoder, prompts: Sequence[str]) -> Array:
    """Text embeddings [n, E] by a CLAP."""
    batches = [list(prompts[start : start + TEXT_BATCH]) for start in range(0, len(prompts), TEXT_BATCH)]
    with torch.inference_mode():
        text = cast(Embedder, clap.embedder).text
        return np.concatenate([_array(batched(clap.embedder, text, batch)) for batch in batches])


def _encode(encoder: AudioEncoder, waves: torch.Tensor) -> Array:
    with torch.inference_mode():
        return _array(batched(encoder.embedder, encoder.embedder.audio, waves))


def _array(tensor: torch.Tensor) -> Array:
    return tensor.detach().float().numpy().astype(np.float64)


def content_digest(file: Path) -> str:
    """A digest of a file's bytes; "" where it can't be read."""
    try:
        return file_digest(file)
    except OSError:
        return ""


def with_file_name(file: Path, message: str) -> str:
    """An error about a file in one line that names it."""
    return message if str(file) in message else f"{file}: {message}"


def _key(content: str, encoder: AudioEncoder) -> bytes:
    return bytes.fromhex(digest_of(__version__, content, encoder.digest))


REFERENCE_KIND = "plaudit.reference"


@dataclass(frozen=True)
class Reference:
    """The embeddings of reference music by one encoder.

    embedding, digest: the encoder's. clips: how many the statistics are of. embeddings: [clips, E], or None where only
    the Gaussian was exported. source: the folder or file that it comes from, for messages.
    """

    embedding: str
    digest: str
    clips: int
    gaussian: Gaussian
    embeddings: Array | None
    source: str

    @cached_property
    def balls(self) -> Balls:
        """The balls of precision and its like around the embeddings; EvaluationError where there are none."""
        if self.embeddings is None:
            raise EvaluationError(f"{self.source} holds no embeddings")
        return Balls(self.embeddings)


def reference_of(encoder: AudioEncoder, embeddings: Array, source: str) -> Reference:
    """The reference with embeddings [M, E]; EvaluationError where there are fewer than two."""
    return Reference(encoder.name, encoder.digest, len(embeddings), gaussian(embeddings), embeddings, source)


def export_references(path: Path, references: Sequence[Reference], with_embeddings: bool) -> None:
    """Write references into one file, whole or not at all; EvaluationError where embeddings to export are missing."""
    tensors: dict[str, torch.Tensor] = {}
    about = []
    for number, one in enumerate(references):
        parts: dict[str, Array] = {"mean": one.gaussian.mean, "factor": one.gaussian.factor}
        if with_embeddings:
            if one.embeddings is None:
                raise EvaluationError(f"{one.source} holds no embeddings of {one.embedding} to export; embed the audio")
            parts["embeddings"] = one.embeddings
        tensors |= {f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
        about.append({"embedding": one.embedding, "digest": one.digest, "clips": one.clips})
    save_tensors(path, tensors, {"kind": REFERENCE_KIND, "version": __version__, "references": json.dumps(about)})


def load_references(path: Path) -> list[Reference]:
    """Read what `export_references` wrote; EvaluationError or ModelError where the file is not a reference."""
    tensors = load_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("kind") != REFERENCE_KIND:
            raise ValueError("no such kind")
        return [_reference(path, one, tensors, n) for n, one in enumerate(json.loads(metadata["references"]))]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is no reference ({error}); write one with plaudit evaluate --export-reference"
        ) from None


def reference_for(references: Sequence[Reference], encoder: AudioEncoder) -> Reference:
    """The reference by `encoder`; EvaluationError where they are by other encoders or other weights."""
    for one in references:
        if one.digest == encoder.digest:
            return replace(one, embedding=encoder.name)
    source = references[0].source if references else "the reference"
    if any(one.embedding == encoder.name for one in references):
        raise EvaluationError(
            f"{source} was made with other weights of {encoder.name!r} than those here; make it again from the audio"
        )
    names = ", ".join(repr(one.embedding) for one in references)
    raise EvaluationError(f"{source} is of the embedding {names}, not of {encoder.name!r}; use that with --embedding")


def embed_reference_folder(
    folder: Path, encoders: Sequence[AudioEncoder], cache: EmbeddingCache | None, progress: Progress
) -> tuple[list[Reference], list[str], set[str]]:
    """`embed_reference_files` of the audio under `folder`."""
    return embed_reference_files(list_audio_files([folder]), str(folder), encoders, cache, progress)


def embed_reference_files(
    files: Sequence[Path], source: str, encoders: Sequence[AudioEncoder], cache: EmbeddingCache | None,
    progress: Progress,
) -> tuple[list[Reference], list[str], set[str]]:  # fmt: skip
    """(one reference per encoder of audio files, a note on each unreadable file, digests of the files).

    A file that one encoder can't read is part of no reference. source: where the files are from, for messages.
    EvaluationError where fewer than two can be read.
    """
    rows, notes = list[list[Array]](), list[str]()
    for number, file in enumerate(files, start=1):
        clip = clip_from_file(file, cache)
        try:
            rows.append([clip.embedding(encoder) for encoder in encoders])
        except AudioError as error:
            notes.append(f"reference: {with_file_name(file, str(error))}")
        progress(number, len(files))
    if len(rows) < 2:
        raise EvaluationError(f"{source} holds {len(rows)} clips that can be read; a reference needs 2")
    columns = zip(*rows, strict=True)
    references = [reference_of(e, np.stack(column), source) for e, column in zip(encoders, columns, strict=True)]
    return references, notes, {content for file in files if (content := content_digest(file))}


def reference_digest(place: Path) -> str:
    """A digest by content of an exported reference or of the audio in a folder; "none" where it is missing."""
    if not place.is_dir():
        return content_digest(place) or "none"
    return digest_of(sorted(content_digest(file) for file in audio_under(place)))


def _reference(path: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor], number: int) -> Reference:
    """ValueError or KeyError where a part is missing or does not fit the others."""
    mean, factor = (tensors[f"{number}.{part}"].double().numpy() for part in ("mean", "factor"))
    exported = tensors.get(f"{number}.embeddings")
    embeddings = None if exported is None else exported.double().numpy()
    clips = int(about["clips"])
    if mean.ndim != 1 or factor.ndim != 2 or factor.shape[1] != len(mean) or clips < 2:
        raise ValueError("mean and factor do not fit")
    if embeddings is not None and embeddings.shape != (clips, len(mean)):
        raise ValueError("the embeddings do not fit the mean")
    if not all(np.isfinite(part).all() for part in (mean, factor, *([] if embeddings is None else [embeddings]))):
        raise ValueError("not finite")
    return Reference(
        str(about["embedding"]), str(about["digest"]), clips, Gaussian(mean, factor), embeddings, str(path)
    )

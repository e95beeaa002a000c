"""Embeddings of clips by frozen encoders, cached by content, and the statistics of reference music.

A reference file is a safetensors file with, for each encoder, the mean and a factor of the covariance of the embeddings
(plaudit.evaluate.distances) and, where they were asked for, the embeddings themselves. Its metadata say which
encoder, by name and by a digest of its weights, and how many clips. So others can compare without the audio, and never
against another encoder's numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from plaudit import __version__
from plaudit.audio import list_audio_files, read_audio
from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.distances import Array, Balls, Gaussian, gaussian
from plaudit.reward.base import Recording, View
from plaudit.reward.scoring import ContentCache
from plaudit.storage import load_tensors, save_tensors
from plaudit.types import AudioEmbedder


@dataclass(frozen=True)
class AudioEncoder:
    """A frozen encoder under the name that it was asked for by; `digest` is of its weights and configuration."""

    name: str
    digest: str
    embedder: AudioEmbedder


class EmbeddingCache(ContentCache):
    """Embeddings by the content of a file and the encoder's digest, so that no evaluation starts anew."""

    what, column = "embeddings", "embedding BLOB"

    def get(self, content: str, listener: AudioEncoder) -> Array | None:
        """What `listener` heard in a file of this content, or None."""
        found = self._found(_key(content, listener))
        return None if found is None else np.frombuffer(found, dtype="<f4").astype(np.float64)

    def put(self, content: str, listener: AudioEncoder, embedding: Array) -> None:
        """Keep what was heard; it survives a kill."""
        self._keep([(_key(content, listener), embedding.astype("<f4").tobytes())])


class CachedClip:
    """A clip and what was heard in it so far, so that no metric has it decoded or heard again.

    read: what gives the recording, once it is needed. content: the digest of its file under which `cache` keeps what
    is heard; "" where nothing is to be kept.
    """

    def __init__(self, read: Callable[[], Recording], content: str = "", cache: EmbeddingCache | None = None) -> None:
        self._read, self._content, self._cache = read, content, cache if content else None
        self._recording: Recording | None = None
        self._embeddings: dict[str, Array] = {}

    @property
    def recording(self) -> Recording:
        """The decoded clip; AudioError where it can't be read."""
        if self._recording is None:
            self._recording = self._read()
        return self._recording

    def wave(self, rate: int) -> torch.Tensor:
        """The waveform [1, T] at `rate` Hz."""
        return self.recording.view(View(rate))[None]

    def embedding(self, listener: AudioEncoder) -> Array:
        """What `listener` hears, [E]; AudioError where it can't hear the clip or gives no finite numbers."""
        if listener.digest not in self._embeddings:
            kept = self._cache.get(self._content, listener) if self._cache else None
            self._embeddings[listener.digest] = self._embed(listener) if kept is None else kept
        return self._embeddings[listener.digest]

    def _embed(self, listener: AudioEncoder) -> Array:
        with torch.inference_mode():
            heard = listener.embedder.audio(self.wave(listener.embedder.sample_rate))[0]
        found = heard.float().cpu().numpy().astype(np.float64)
        if not np.isfinite(found).all():
            raise AudioError(f"its embedding by {listener.name} is not finite; check the audio")
        if self._cache:
            self._cache.put(self._content, listener, found)
        return found


def clip_from_file(file: Path, cache: EmbeddingCache | None = None) -> CachedClip:
    """The clip in an audio file, decoded once it is needed."""

    def read() -> Recording:
        try:
            wave, rate = read_audio(file)
        except OSError as error:
            raise AudioError(f"{file} cannot be read ({error.strerror}); check the file") from None
        return Recording(torch.from_numpy(wave), rate, str(file))

    return CachedClip(read, content_digest(file) if cache else "", cache)


def clip_from_wave(wave: torch.Tensor, rate: int, name: str) -> CachedClip:
    """The clip in a waveform [T] at `rate` Hz; AudioError where it is not finite, empty or silent."""
    recording = Recording(wave, rate, name)
    return CachedClip(lambda: recording)


def embed_with_all(clip: CachedClip, listeners: Sequence[AudioEncoder]) -> dict[str, Array]:
    """What each listener hears in a clip, by the listener's digest."""
    return {listener.digest: clip.embedding(listener) for listener in listeners}


def content_digest(file: Path) -> str:
    """A digest of a file's bytes; "" where it can't be read."""
    try:
        with file.open("rb") as open_run:
            return hashlib.file_digest(open_run, "sha256").hexdigest()
    except OSError:
        return ""


def with_file_name(file: Path, error: AudioError) -> str:
    """An error about a file in one line that names it."""
    told = str(error)
    return told if str(file) in told else f"{file}: {told}"


def _key(content: str, listener: AudioEncoder) -> bytes:
    return hashlib.sha256(" ".join((__version__, content, listener.digest)).encode()).digest()


REFERENCE_KIND = "plaudit.reference"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reference:
    """Reference music as one encoder hears it.

    embedding, digest: the encoder. clips: how many the statistics are of. embeddings: [clips, E], or None where only
    the Gaussian was passed on. source: the folder or file that it comes from, for messages.
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


def reference_of(listener: AudioEncoder, embeddings: Array, source: str) -> Reference:
    """The reference that embeddings [M, E] make; EvaluationError where there are fewer than two."""
    return Reference(listener.name, listener.digest, len(embeddings), gaussian(embeddings), embeddings, source)


def export_references(path: Path, references: Sequence[Reference], with_embeddings: bool) -> None:
    """Write references into one file, whole or not at all; EvaluationError where embeddings are wanted but unknown."""
    tensors: dict[str, torch.Tensor] = {}
    told = []
    for number, one in enumerate(references):
        parts: dict[str, Array] = {"mean": one.gaussian.mean, "factor": one.gaussian.factor}
        if with_embeddings:
            if one.embeddings is None:
                raise EvaluationError(f"{one.source} holds no embeddings of {one.embedding} to export; hear the audio")
            parts["embeddings"] = one.embeddings
        tensors |= {f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
        told.append({"embedding": one.embedding, "digest": one.digest, "clips": one.clips})
    save_tensors(path, tensors, {"kind": REFERENCE_KIND, "version": __version__, "references": json.dumps(told)})


def load_references(path: Path) -> list[Reference]:
    """Read what `export_references` wrote; EvaluationError or ModelError, in one line, where the file is another."""
    tensors = load_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("kind") != REFERENCE_KIND:
            raise ValueError("no such kind")
        told = json.loads(metadata["references"])
        found = [_reference(path, one, tensors, number) for number, one in enumerate(told)]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is no reference ({error}); write one with plaudit evaluate --export-reference"
        ) from None
    return found


def reference_for(references: Sequence[Reference], listener: AudioEncoder) -> Reference:
    """The one that `listener` heard; EvaluationError where the references are of other encoders or other weights."""
    for one in references:
        if one.digest == listener.digest:
            return replace(one, embedding=listener.name)
    source = references[0].source if references else "the reference"
    if any(one.embedding == listener.name for one in references):
        raise EvaluationError(
            f"{source} was made with other weights of {listener.name!r} than those here; make it again from the audio"
        )
    held = ", ".join(repr(one.embedding) for one in references)
    raise EvaluationError(f"{source} is of the embedding {held}, not of {listener.name!r}; use that with --embedding")


def embed_reference_folder(
    folder: Path, listeners: Sequence[AudioEncoder], cache: EmbeddingCache | None, progress: Progress
) -> tuple[list[Reference], list[str], set[str]]:
    """The audio under `folder` as each listener hears it, a note on each file that can't be heard, and the contents.

    A file that one listener can't hear is part of no reference. EvaluationError where fewer than two can be heard.
    """
    files = list_audio_files([folder])
    heard, notes = [], []
    for number, file in enumerate(files, start=1):
        try:
            heard.append(embed_with_all(clip_from_file(file, cache), listeners))
        except AudioError as error:
            notes.append(f"reference: {with_file_name(file, error)}")
        progress(number, len(files))
    if len(heard) < 2:
        raise EvaluationError(f"{folder} holds {len(heard)} clips that can be heard; a reference needs 2")
    made = [reference_of(one, np.stack([clip[one.digest] for clip in heard]), str(folder)) for one in listeners]
    return made, notes, {content for file in files if (content := content_digest(file))}


def _reference(path: Path, told: dict[str, Any], tensors: dict[str, torch.Tensor], number: int) -> Reference:
    """ValueError or KeyError where a part is missing or does not fit the others."""
    mean, factor = (tensors[f"{number}.{part}"].double().numpy() for part in ("mean", "factor"))
    held = tensors.get(f"{number}.embeddings")
    embeddings = None if held is None else held.double().numpy()
    clips = int(told["clips"])
    if mean.ndim != 1 or factor.ndim != 2 or factor.shape[1] != len(mean) or clips < 2:
        raise ValueError("mean and factor do not fit")
    if embeddings is not None and embeddings.shape != (clips, len(mean)):
        raise ValueError("the embeddings do not fit the mean")
    if not all(np.isfinite(part).all() for part in (mean, factor, *([] if embeddings is None else [embeddings]))):
        raise ValueError("not finite")
    return Reference(str(told["embedding"]), str(told["digest"]), clips, Gaussian(mean, factor), embeddings, str(path))

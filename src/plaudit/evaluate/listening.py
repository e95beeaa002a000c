"""Clips as frozen listeners hear them: each decoded once and embedded once by each, and known again by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plaudit import __version__
from plaudit.audio import read_audio
from plaudit.errors import AudioError
from plaudit.evaluate.distances.embeddings import Array
from plaudit.reward.cache import ContentCache
from plaudit.reward.recording import Recording, View
from plaudit.types import AudioEmbedder


@dataclass(frozen=True)
class Listener:
    """A frozen encoder under the name that it was asked for by; `digest` is of its weights and configuration."""

    name: str
    digest: str
    embedder: AudioEmbedder


class EmbeddingCache(ContentCache):
    """Embeddings by the content of a file and the encoder's digest, so that no evaluation starts anew."""

    what, column = "embeddings", "embedding BLOB"

    def get(self, content: str, listener: Listener) -> Array | None:
        """What `listener` heard in a file of this content, or None."""
        found = self._found(_key(content, listener))
        return None if found is None else np.frombuffer(found, dtype="<f4").astype(np.float64)

    def put(self, content: str, listener: Listener, embedding: Array) -> None:
        """Keep what was heard; it survives a kill."""
        self._keep([(_key(content, listener), embedding.astype("<f4").tobytes())])


class HeardClip:
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
        return self.recording.heard(View(rate))[None]

    def embedding(self, listener: Listener) -> Array:
        """What `listener` hears, [E]; AudioError where it can't hear the clip or gives no finite numbers."""
        if listener.digest not in self._embeddings:
            kept = self._cache.get(self._content, listener) if self._cache else None
            self._embeddings[listener.digest] = self._heard(listener) if kept is None else kept
        return self._embeddings[listener.digest]

    def _heard(self, listener: Listener) -> Array:
        with torch.inference_mode():
            heard = listener.embedder.audio(self.wave(listener.embedder.sample_rate))[0]
        found = heard.float().cpu().numpy().astype(np.float64)
        if not np.isfinite(found).all():
            raise AudioError(f"its embedding by {listener.name} is not finite; check the audio")
        if self._cache:
            self._cache.put(self._content, listener, found)
        return found


def clip_of_file(file: Path, cache: EmbeddingCache | None = None) -> HeardClip:
    """The clip in an audio file, decoded once it is needed."""

    def read() -> Recording:
        try:
            wave, rate = read_audio(file)
        except OSError as error:
            raise AudioError(f"{file} cannot be read ({error.strerror}); check the file") from None
        return Recording(torch.from_numpy(wave), rate, str(file))

    return HeardClip(read, content_of(file) if cache else "", cache)


def clip_of_wave(wave: torch.Tensor, rate: int, name: str) -> HeardClip:
    """The clip in a waveform [T] at `rate` Hz; AudioError where it is not finite, empty or silent."""
    recording = Recording(wave, rate, name)
    return HeardClip(lambda: recording)


def heard_by_all(clip: HeardClip, listeners: Sequence[Listener]) -> dict[str, Array]:
    """What each listener hears in a clip, by the listener's digest."""
    return {listener.digest: clip.embedding(listener) for listener in listeners}


def content_of(file: Path) -> str:
    """A digest of a file's bytes; "" where it can't be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""


def of_file(file: Path, error: AudioError) -> str:
    """An error about a file in one line that names it."""
    told = str(error)
    return told if str(file) in told else f"{file}: {told}"


def _key(content: str, listener: Listener) -> bytes:
    return hashlib.sha256(" ".join((__version__, content, listener.digest)).encode()).digest()

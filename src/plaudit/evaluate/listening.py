"""Clips as frozen listeners hear them: each file decoded once, and embedded once by each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plaudit.audio import read_audio
from plaudit.errors import AudioError
from plaudit.evaluate.distances.embeddings import Array
from plaudit.reward.recording import Recording, View
from plaudit.types import AudioEmbedder


@dataclass(frozen=True)
class Listener:
    """A frozen encoder under the name that it was asked for by; `digest` is of its weights and configuration."""

    name: str
    digest: str
    embedder: AudioEmbedder


class HeardClip:
    """A recording and what was heard in it so far, so that no metric has it heard again."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._embeddings: dict[str, Array] = {}

    def wave(self, rate: int) -> torch.Tensor:
        """The waveform [1, T] at `rate` Hz."""
        return self.recording.heard(View(rate))[None]

    def embedding(self, listener: Listener) -> Array:
        """What `listener` hears, [E]; AudioError where it can't hear the clip or gives no finite numbers."""
        if listener.digest not in self._embeddings:
            with torch.inference_mode():
                heard = listener.embedder.audio(self.wave(listener.embedder.sample_rate))[0]
            found = heard.float().cpu().numpy().astype(np.float64)
            if not np.isfinite(found).all():
                raise AudioError(f"its embedding by {listener.name} is not finite; check the audio")
            self._embeddings[listener.digest] = found
        return self._embeddings[listener.digest]


def heard_files(files: Sequence[Path]) -> Iterator[HeardClip | str]:
    """Each file as a clip that can be heard, or in one line why it can't be read."""
    for file in files:
        try:
            wave, rate = read_audio(file)
            yield HeardClip(Recording(torch.from_numpy(wave), rate, str(file)))
        except AudioError as error:
            yield str(error)
        except OSError as error:
            yield f"{file} cannot be read ({error.strerror}); check the file"

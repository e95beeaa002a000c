"""The embedded world as a corpus like any other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from plaudit.corpus.embedded.source import EmbeddedClip, EmbeddedCorpus
from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError


class EmbeddedSource:
    """An EmbeddedCorpus seen as a Corpus: captions as written, no rewards, sound rendered when loaded."""

    name = "embedded"

    def __init__(self, corpus: EmbeddedCorpus) -> None:
        self.corpus = corpus
        self._clips = {clip.id: clip for clip in corpus.clips}

    def entries(self) -> list[Entry]:
        """One entry per clip, in the corpus's order."""
        return [
            Entry(clip.id, clip.caption, clip.split, self.name, origin=self._origin(clip)) for clip in self.corpus.clips
        ]

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """The first `seconds` of each clip, rendered anew; CorpusError for one of another corpus."""
        waves = []
        for clip in clips:
            if clip.id not in self._clips:
                raise CorpusError(f"clip {clip.id!r} is not in this embedded corpus of {self.corpus.size} clips")
            waves.append(self.corpus.render(self._clips[clip.id])[: math.floor(seconds * self.corpus.rate)])
        return waves, self.corpus.rate

    def _origin(self, clip: EmbeddedClip) -> str:
        played = f"{clip.seed} {self.corpus.seconds:g} {clip.truth} {sorted(clip.flaws.items())}"
        return hashlib.blake2b(played.encode(), digest_size=8).hexdigest()

"""What tells whether a concept is to be heard in a clip: the embedded world's probes, or a CLAP asked in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from plaudit.corpus.embedded.hearing import RATE, TEMPI
from plaudit.corpus.embedded.probes import Measurement, Probes, measure
from plaudit.corpus.embedded.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS
from plaudit.evaluate.concepts.vocabulary import ALL_KEYS, Concept, Vocabulary
from plaudit.evaluate.listening import HeardClip, Listener
from plaudit.types import Embedder

TEMPO_TOLERANCE = 0.04
"""A tempo within this share of the one asked for is it; as in the probes' own figures."""


class Detector(Protocol):
    """Hears concepts. `identity` is a name for it and its weights, under which its error rates are kept."""

    identity: str

    def knows(self, concept: Concept) -> bool:
        """Whether it can tell at all."""

    def found(self, clip: HeardClip, concepts: Sequence[Concept]) -> list[bool]:
        """Whether each concept, all of which it knows, is there. AudioError where the clip can't be heard."""


class ProbeDetector:
    """The embedded world's probes: the likeliest genre, mood, tempo and key, and each instrument more likely than not.

    They know the embedded world's words alone, and were trained on its sound alone.
    """

    def __init__(self, probes: Probes, digest: str) -> None:
        self._probes, self.identity = probes, f"probes {digest}"

    def knows(self, concept: Concept) -> bool:
        """Whether all its parts are facts of the embedded world."""
        named = {"genre": GENRES, "mood": MOODS, "instrument": INSTRUMENTS, "key": MODES}
        if concept.category == "tempo":
            return concept.bpm is not None
        return concept.category in named and all(part in named[concept.category] for part in concept.parts)

    def found(self, clip: HeardClip, concepts: Sequence[Concept]) -> list[bool]:
        """See Detector; the probes need clips of 2.5 s."""
        heard = measure(self._probes, clip.wave(RATE))
        return [self._found(heard, concept) for concept in concepts]

    def _found(self, heard: Measurement, concept: Concept) -> bool:
        if concept.category == "genre":
            return GENRES[int(heard.genre[0].argmax())] in concept.parts
        if concept.category == "mood":
            return MOODS[int(heard.mood[0].argmax())] in concept.parts
        if concept.category == "instrument":
            return any(float(heard.instruments[0, INSTRUMENTS.index(part)]) > 0.5 for part in concept.parts)
        if concept.category == "tempo":
            return tempo_fits(TEMPI[int(heard.tempo[0].argmax())], concept)
        if concept.tonic is None:
            return MODES[int(heard.key[0].sum(0).argmax())] in concept.parts
        place = KEYS.index(concept.tonic) * len(MODES) + MODES.index(concept.parts[0])
        return int(heard.key[0].flatten().argmax()) == place


class ZeroShotDetector:
    """A CLAP that is asked in words: of a category's concepts, the `heard` closest to the clip count as there.

    The vocabulary says how the words are put and how many of a category a piece has. Named keys are asked for among
    all named keys, a tempo in figures by the word for it. The rule is ours: cosines of different concepts are not on
    one scale, so no threshold would serve all.
    """

    def __init__(self, clap: Listener, reader: Embedder, vocabulary: Vocabulary) -> None:
        self._clap = clap
        self.identity = f"zero-shot {clap.digest}"
        self._vocabulary = vocabulary
        self._names: dict[str, list[str]] = {}
        self._texts: dict[str, np.ndarray] = {}
        for category in vocabulary.categories.values():
            names = [c.name for c in category.concepts if c.parts == (c.name,)]
            self._ask(category.name, category.text, names, reader)
        if "key" in vocabulary.categories:
            self._ask("named key", vocabulary.categories["key"].text, [key.name for key in ALL_KEYS], reader)

    def knows(self, concept: Concept) -> bool:
        """Whether the vocabulary has the words for it."""
        if concept.tonic is not None:
            return "key" in self._vocabulary.categories
        return all(part in self._names.get(concept.category, ()) for part in self._asked(concept))

    def found(self, clip: HeardClip, concepts: Sequence[Concept]) -> list[bool]:
        """See Detector."""
        heard = clip.embedding(self._clap)
        closest: dict[str, list[str]] = {}
        for category, texts in self._texts.items():
            kind = self._vocabulary.categories.get(category)
            order = np.argsort(-(texts @ heard), kind="stable")[: kind.heard if kind else 1]
            closest[category] = [self._names[category][place] for place in order]
        return [self._found(closest, concept) for concept in concepts]

    def _found(self, closest: dict[str, list[str]], concept: Concept) -> bool:
        if concept.tonic is not None:
            return concept.name in closest["named key"]
        return any(part in closest[concept.category] for part in self._asked(concept))

    def _asked(self, concept: Concept) -> tuple[str, ...]:
        """The names by which a concept is asked for."""
        if concept.bpm is None or concept.parts:
            return concept.parts
        tempi = self._vocabulary.categories["tempo"].concepts
        return tuple(word.name for word in tempi if word.bpm and word.bpm[0] <= concept.bpm[0] < word.bpm[1])

    def _ask(self, category: str, text: str, names: list[str], reader: Embedder) -> None:
        if names:
            with torch.inference_mode():
                embedded = reader.text([text.format(name) for name in names])
            self._names[category] = names
            self._texts[category] = embedded.float().cpu().numpy().astype(np.float64)


def tempo_fits(bpm: float, concept: Concept) -> bool:
    """Whether a tempo is the one, or in the range, that was asked for, within the tolerance."""
    assert concept.bpm is not None
    low, high = concept.bpm
    return low * (1 - TEMPO_TOLERANCE) <= bpm <= high * (1 + TEMPO_TOLERANCE)

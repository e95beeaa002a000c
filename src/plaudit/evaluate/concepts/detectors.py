"""Concept detectors, the coverage of a prompt's concepts, and the detectors' error rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.vocabulary import ALL_KEYS, Concept, Vocabulary
from plaudit.evaluate.embeddings import AudioEncoder, CachedClip
from plaudit.registry import Registry
from plaudit.statistics import Interval
from plaudit.storage import write_json
from plaudit.types import Embedder

TEMPO_TOLERANCE = 0.04
"""A tempo within this fraction of the prompt's is it; as where the probes are evaluated."""


class Detector(Protocol):
    """Detects concepts. `identity` stands for it and its weights; error rates are kept under it."""

    identity: str

    def knows(self, concept: Concept) -> bool:
        """Whether it can detect the concept."""

    def found(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """Whether the clip has each concept, all of which it knows. AudioError where the clip can't be used."""


class ZeroShotDetector:
    """A zero-shot classifier by CLAP: of a category's concepts, the `heard` closest to the clip count as present.

    The vocabulary says how the words are put and how many of a category a piece has. Named keys are classified among
    all named keys, a tempo in figures by the word for it. The rule is ours: cosines of different concepts are not on
    one scale, so no threshold would serve all.
    """

    def __init__(self, clap: AudioEncoder, reader: Embedder, vocabulary: Vocabulary) -> None:
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
        return all(part in self._names.get(concept.category, ()) for part in self._zero_shot_names(concept))

    def found(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """See Detector."""
        embedding = clip.embedding(self._clap)
        closest: dict[str, list[str]] = {}
        for category, texts in self._texts.items():
            kind = self._vocabulary.categories.get(category)
            order = np.argsort(-(texts @ embedding), kind="stable")[: kind.heard if kind else 1]
            closest[category] = [self._names[category][place] for place in order]
        return [self._found(closest, concept) for concept in concepts]

    def _found(self, closest: dict[str, list[str]], concept: Concept) -> bool:
        if concept.tonic is not None:
            return concept.name in closest["named key"]
        return any(part in closest[concept.category] for part in self._zero_shot_names(concept))

    def _zero_shot_names(self, concept: Concept) -> tuple[str, ...]:
        """The names that stand for a concept in the texts."""
        if concept.bpm is None or concept.parts:
            return concept.parts
        tempi = self._vocabulary.categories["tempo"].concepts
        return tuple(word.name for word in tempi if word.bpm and word.bpm[0] <= concept.bpm[0] < word.bpm[1])

    def _ask(self, category: str, text: str, names: list[str], reader: Embedder) -> None:
        if names:
            with torch.inference_mode():
                embeddings = reader.text([text.format(name) for name in names])
            self._names[category] = names
            self._texts[category] = embeddings.float().cpu().numpy().astype(np.float64)


def zero_shot_detector(clap: Callable[[], tuple[AudioEncoder, Embedder]], vocabulary: Vocabulary) -> ZeroShotDetector:
    """A CLAP as a detector of the vocabulary's concepts."""
    return ZeroShotDetector(*clap(), vocabulary)


DETECTORS: Registry[Callable[[Callable[[], tuple[AudioEncoder, Embedder]], Vocabulary], Detector]] = Registry(
    "concept detector",
    "plaudit.detectors",
    {
        "probes": "plaudit.synthetic.evaluators:probe_detector",
        "clap": "plaudit.evaluate.concepts.detectors:zero_shot_detector",
    },
    error=EvaluationError,
)
"""Functions of a loader of the chosen CLAP and a vocabulary, which return a detector."""


def tempo_fits(bpm: float, concept: Concept) -> bool:
    """Whether a tempo is the prompt's, or in its range, within the tolerance."""
    assert concept.bpm is not None
    low, high = concept.bpm
    return low * (1 - TEMPO_TOLERANCE) <= bpm <= high * (1 + TEMPO_TOLERANCE)


@dataclass(frozen=True)
class ConceptCoverage:
    """Which of a prompt's concepts a clip has, which it lacks, and which the detector does not support."""

    detected: tuple[Concept, ...]
    missed: tuple[Concept, ...]
    unsupported: tuple[Concept, ...]

    @property
    def share(self) -> float | None:
        """Detected of those supported; None where the prompt names no such concept."""
        supported = len(self.detected) + len(self.missed)
        return len(self.detected) / supported if supported else None

    def to_dict(self) -> dict[str, list[str]]:
        """Plain data."""
        return {name: [str(concept) for concept in concepts] for name, concepts in vars(self).items()}


def concept_coverage(clip: CachedClip, concepts: Sequence[Concept], detector: Detector) -> ConceptCoverage:
    """Which of `concepts` the clip has."""
    supported = [concept for concept in concepts if detector.knows(concept)]
    present = detector.found(clip, supported) if supported else []
    pairs = list(zip(supported, present, strict=True))
    return ConceptCoverage(
        tuple(concept for concept, there in pairs if there),
        tuple(concept for concept, there in pairs if not there),
        tuple(concept for concept in concepts if not detector.knows(concept)),
    )


SHIPPED_ERROR_RATES = Path(__file__).with_name("error_rates.json")

@dataclass(frozen=True)
class Rate:
    """Of `total` decisions about a category, how many were wrong."""

    total: int
    wrong: int

    @property
    def fraction(self) -> float | None:
        """Of wrong decisions; None where there were none to make."""
        return self.wrong / self.total if self.total else None


@dataclass(frozen=True)
class ErrorRates:
    """A detector's errors by category. missed: of concepts that are there; false: of concepts that are not.

    right, other: the coverage of clips by their own caption, the most that a generator can expect to reach, and by
    another clip's, which is what one that ignores its prompts gets; each with its interval over clips.
    """

    detector: str
    vocabulary: str
    measured_on: str
    missed: dict[str, Rate]
    false: dict[str, Rate]
    right: Interval
    other: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def save_rates(path: Path, rates: ErrorRates) -> None:
    """Write error rates as JSON, beside those of other detectors and vocabularies that the file holds."""
    held = load_rates(path) if path.is_file() and path.stat().st_size else []
    others = [one for one in held if (one.detector, one.vocabulary) != (rates.detector, rates.vocabulary)]
    write_json(path, [one.to_dict() for one in (*others, rates)])


def load_rates(path: Path = SHIPPED_ERROR_RATES) -> list[ErrorRates]:
    """Read what `save_rates` wrote; EvaluationError where it is something else."""
    try:
        return [rates_from_dict(told) for told in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} holds no error rates ({error}); write them with plaudit concepts") from None


def rates_of(detector: Detector, vocabulary: Vocabulary, known: Sequence[ErrorRates]) -> ErrorRates | None:
    """Those of this very detector and vocabulary, or None where they were not measured."""
    names = (detector.identity, vocabulary.digest)
    return next((rates for rates in known if (rates.detector, rates.vocabulary) == names), None)


def rates_from_dict(told: dict[str, Any]) -> ErrorRates:
    """What `to_dict` of error rates gave."""
    return ErrorRates(
        **{name: told[name] for name in ("detector", "vocabulary", "measured_on")},
        missed={category: Rate(**rate) for category, rate in told["missed"].items()},
        false={category: Rate(**rate) for category, rate in told["false"].items()},
        right=Interval(**told["right"]),
        other=Interval(**told["other"]),
    )

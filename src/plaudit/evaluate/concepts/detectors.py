"""Concept detectors, the coverage of a prompt's concepts, and the detectors' error rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from plaudit.devices import batched
from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.vocabulary import ALL_KEYS, Concept, Vocabulary
from plaudit.evaluate.embeddings import AudioEncoder, CachedClip
from plaudit.registry import Registry
from plaudit.statistics import Interval
from plaudit.storage import write_json
from plaudit.types import Embedder

TEMPO_TOLERANCE = 0.04
"""Relative deviation up to which a tempo counts as the one in the prompt; as in the evaluation of the probes."""


class Detector(Protocol):
    """Detects concepts in clips. `identity` covers its weights too; error rates are stored under it."""

    identity: str

    def supports(self, concept: Concept) -> bool:
        """Whether the detector can detect the concept."""

    def detect(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """Whether the clip has each concept; all must be supported. AudioError where the clip can't be used."""


class QuestionAnswerer(Protocol):
    """Answers questions on a clip. `identity` covers its weights' version too."""

    identity: str
    sample_rate: int

    def margins(self, wave: torch.Tensor, questions: Sequence[str]) -> list[float]:
        """For each question on the clip [T] at `sample_rate`, logit(yes) - logit(no)."""


class ZeroShotDetector:
    """A zero-shot classifier with CLAP: the `per_clip` closest concepts of each category count as present.

    The vocabulary gives the text template and the number of concepts per clip. Named keys are classified among all
    named keys, a tempo in figures by the word for it. The rule is ours: cosines of different concepts are not on one
    scale, so no single threshold would do.
    """

    def __init__(self, clap: AudioEncoder, text_encoder: Embedder, vocabulary: Vocabulary) -> None:
        self._clap = clap
        self.identity = f"zero-shot {clap.digest}"
        self._vocabulary = vocabulary
        self._names: dict[str, list[str]] = {}
        self._texts: dict[str, np.ndarray] = {}
        for category in vocabulary.categories.values():
            names = [c.name for c in category.concepts if c.parts == (c.name,)]
            self._encode_texts(category.name, category.text, names, text_encoder)
        if "key" in vocabulary.categories:
            self._encode_texts(
                "named key", vocabulary.categories["key"].text, [key.name for key in ALL_KEYS], text_encoder
            )

    def supports(self, concept: Concept) -> bool:
        """Whether the vocabulary has the words for it."""
        if concept.tonic is not None:
            return "key" in self._vocabulary.categories
        return all(part in self._names.get(concept.category, ()) for part in self._zero_shot_names(concept))

    def detect(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """See Detector."""
        embedding = clip.embedding(self._clap)
        closest: dict[str, list[str]] = {}
        for category, texts in self._texts.items():
            settings = self._vocabulary.categories.get(category)
            order = np.argsort(-(texts @ embedding), kind="stable")[: settings.per_clip if settings else 1]
            closest[category] = [self._names[category][index] for index in order]
        return [self._is_among(closest, concept) for concept in concepts]

    def _is_among(self, closest: dict[str, list[str]], concept: Concept) -> bool:
        if concept.tonic is not None:
            return concept.name in closest["named key"]
        return any(part in closest[concept.category] for part in self._zero_shot_names(concept))

    def _zero_shot_names(self, concept: Concept) -> tuple[str, ...]:
        """The names of a concept in the encoded texts."""
        if concept.bpm is None or concept.parts:
            return concept.parts
        tempi = self._vocabulary.categories["tempo"].concepts
        return tuple(word.name for word in tempi if word.bpm and word.bpm[0] <= concept.bpm[0] < word.bpm[1])

    def _encode_texts(self, category: str, text: str, names: list[str], text_encoder: Embedder) -> None:
        if names:
            with torch.inference_mode():
                embeddings = batched(text_encoder, text_encoder.text, [text.format(name) for name in names])
            self._names[category] = names
            self._texts[category] = embeddings.float().numpy().astype(np.float64)


def zero_shot_detector(clap: Callable[[], tuple[AudioEncoder, Embedder]], vocabulary: Vocabulary) -> ZeroShotDetector:
    """A zero-shot detector of the vocabulary's concepts with a CLAP."""
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
"""Factories (load_clap, vocabulary) -> detector; `load_clap` loads the CLAP in use."""


def tempo_fits(bpm: float, concept: Concept) -> bool:
    """Whether a tempo equals the concept's, or is in its range, within the tolerance."""
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
    def fraction(self) -> float | None:
        """Of the supported concepts, the fraction detected; None where the prompt names none."""
        supported = len(self.detected) + len(self.missed)
        return len(self.detected) / supported if supported else None

    def to_dict(self) -> dict[str, list[str]]:
        """Plain data."""
        return {name: [str(concept) for concept in concepts] for name, concepts in vars(self).items()}


def concept_coverage(clip: CachedClip, concepts: Sequence[Concept], detector: Detector) -> ConceptCoverage:
    """Which of `concepts` the clip has."""
    supported = [concept for concept in concepts if detector.supports(concept)]
    present = detector.detect(clip, supported) if supported else []
    pairs = list(zip(supported, present, strict=True))
    return ConceptCoverage(
        tuple(concept for concept, is_present in pairs if is_present),
        tuple(concept for concept, is_present in pairs if not is_present),
        tuple(concept for concept in concepts if not detector.supports(concept)),
    )


SHIPPED_ERROR_RATES = Path(__file__).with_name("error_rates.json")


@dataclass(frozen=True)
class ErrorRate:
    """Wrong decisions among all decisions about a category."""

    total: int
    wrong: int

    @property
    def fraction(self) -> float | None:
        """None where there was no decision."""
        return self.wrong / self.total if self.total else None


@dataclass(frozen=True)
class ErrorRates:
    """A detector's errors by category. missed: present concepts not detected; false: absent concepts
    detected.

    right, other: concept coverage of clips by their own captions, the most that a generator can expect to reach, and by
    the captions of other clips, which a generator that ignores its prompts would reach; with intervals over clips.
    """

    detector: str
    vocabulary: str
    measured_on: str
    missed: dict[str, ErrorRate]
    false: dict[str, ErrorRate]
    right: Interval
    other: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def save_rates(path: Path, rates: ErrorRates) -> None:
    """Write error rates as JSON, in place of any of the same detector and vocabulary in the file."""
    previous = load_rates(path) if path.is_file() and path.stat().st_size else []
    key = (rates.detector, rates.vocabulary)
    others = [entry for entry in previous if (entry.detector, entry.vocabulary) != key]
    write_json(path, [entry.to_dict() for entry in (*others, rates)])


def load_rates(path: Path = SHIPPED_ERROR_RATES) -> list[ErrorRates]:
    """Read a file of `save_rates`; EvaluationError where it is no such file."""
    try:
        return [rates_from_dict(values) for values in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} holds no error rates ({error}); write them with plaudit concepts") from None


def rates_of(detector: Detector, vocabulary: Vocabulary, candidates: Sequence[ErrorRates]) -> ErrorRates | None:
    """The error rates measured with this detector and vocabulary, or None."""
    names = (detector.identity, vocabulary.digest)
    return next((rates for rates in candidates if (rates.detector, rates.vocabulary) == names), None)


def rates_from_dict(values: dict[str, Any]) -> ErrorRates:
    """The inverse of `ErrorRates.to_dict`."""
    return ErrorRates(
        **{name: values[name] for name in ("detector", "vocabulary", "measured_on")},
        missed={category: ErrorRate(**rate) for category, rate in values["missed"].items()},
        false={category: ErrorRate(**rate) for category, rate in values["false"].items()},
        right=Interval(**values["right"]),
        other=Interval(**values["other"]),
    )

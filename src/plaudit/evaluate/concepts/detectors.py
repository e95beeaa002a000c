"""Concept detectors, the coverage of a prompt's concepts, and the detectors' error rates.

Clips of the synthetic world, clean and captioned rightly, are asked for what their own caption names, which is there,
and for what the caption of another clip names and they have not. So the figures are of the very questions that concept
coverage asks. Ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.vocabulary import ALL_KEYS, Concept, Vocabulary, concepts_in
from plaudit.evaluate.embeddings import AudioEncoder, CachedClip, clip_from_wave
from plaudit.statistics import Interval, bootstrap_mean
from plaudit.storage import write_json
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.probes import RATE, TEMPI, Measurement, Probes, measure, round_trip
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Codec, Embedder

TEMPO_TOLERANCE = 0.04
"""A tempo within this share of the one asked for is it; as in the probes' own figures."""


class Detector(Protocol):
    """Hears concepts. `identity` is a name for it and its weights, under which its error rates are kept."""

    identity: str

    def knows(self, concept: Concept) -> bool:
        """Whether it can tell at all."""

    def found(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """Whether each concept, all of which it knows, is there. AudioError where the clip can't be heard."""


class ProbeDetector:
    """The synthetic world's probes: the likeliest genre, mood, tempo and key, and each instrument more likely than not.

    They know the synthetic world's words alone, and were trained on its sound alone.
    """

    def __init__(self, probes: Probes, digest: str) -> None:
        self._probes, self.identity = probes, f"probes {digest}"

    def knows(self, concept: Concept) -> bool:
        """Whether all its parts are facts of the synthetic world."""
        named = {"genre": GENRES, "mood": MOODS, "instrument": INSTRUMENTS, "key": MODES}
        if concept.category == "tempo":
            return concept.bpm is not None
        return concept.category in named and all(part in named[concept.category] for part in concept.parts)

    def found(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
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
        return all(part in self._names.get(concept.category, ()) for part in self._asked(concept))

    def found(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
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


def coverage_by(detector: Detector, vocabulary: Vocabulary) -> Callable[[Tensor, int, str], float | None]:
    """(wave [T], rate, prompt) -> the share of the prompt's concepts that the detector hears in the wave."""

    def share(wave: Tensor, rate: int, prompt: str) -> float | None:
        return concept_coverage(clip_from_wave(wave, rate, prompt), concepts_in(prompt, vocabulary), detector).share

    return share


SHIPPED_ERROR_RATES = Path(__file__).with_name("error_rates.json")
ERROR_RATE_SEED = 811
"""The corpus that detectors are measured on; no model of the package was trained on it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rate:
    """Of `asked` questions of one kind, how many were answered wrongly."""

    asked: int
    wrong: int

    @property
    def share(self) -> float | None:
        """Wrong of asked; None where nothing was asked."""
        return self.wrong / self.asked if self.asked else None


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


def measure_errors(
    detector: Detector,
    vocabulary: Vocabulary,
    clips: int,
    seconds: float,
    progress: Progress,
    codec: Codec | None = None,
    seed: int = ERROR_RATE_SEED,
) -> ErrorRates:
    """Ask `detector` about `clips` synthetic clips of `seconds` each; at least two.

    With a codec the clips are heard as it returns them, which is how generated clips sound.
    """
    if clips < 2:
        raise EvaluationError(f"{clips} clips are too few to measure a detector on; take at least 2")
    corpus = SyntheticCorpus(clips, seconds, seed, flawed_fraction=0.0, miscaptioned_fraction=0.0)
    missed: dict[str, list[bool]] = {}
    false: dict[str, list[bool]] = {}
    right, other, generator = [], [], torch.Generator().manual_seed(seed)
    for number, clip in enumerate(corpus.clips):
        wave = torch.from_numpy(corpus.render(clip))
        if codec is not None:
            with torch.inference_mode():
                wave = round_trip(wave[None], codec, generator)[0]
        heard = clip_from_wave(wave, corpus.rate, clip.id)
        own = [c for c in concepts_in(clip.caption, vocabulary) if holds(c, clip.truth)]
        foreign = concepts_in(_other(corpus.clips, number).caption, vocabulary)
        of_own, of_foreign = concept_coverage(heard, own, detector), concept_coverage(heard, foreign, detector)
        for concept in (*of_own.detected, *of_own.missed):
            missed.setdefault(concept.category, []).append(concept in of_own.missed)
        for concept in (*of_foreign.detected, *of_foreign.missed):
            if not holds(concept, clip.truth):
                false.setdefault(concept.category, []).append(concept in of_foreign.detected)
        right += [of_own.share] if of_own.share is not None else []
        other += [of_foreign.share] if of_foreign.share is not None else []
        progress(number + 1, clips)
    if not right or not other:
        raise EvaluationError(
            "the vocabulary finds nothing in the captions of the synthetic world; measure another way"
        )
    return ErrorRates(
        detector=detector.identity,
        vocabulary=vocabulary.digest,
        measured_on=f"{clips} clean synthetic clips of {seconds:g} s, corpus {seed}"
        + ("" if codec is None else f", as the codec {codec.name} returns them"),
        missed={category: Rate(len(wrong), sum(wrong)) for category, wrong in missed.items()},
        false={category: Rate(len(wrong), sum(wrong)) for category, wrong in false.items()},
        right=bootstrap_mean(right, seed=0),
        other=bootstrap_mean(other, seed=0),
    )


def holds(concept: Concept, truth: Truth) -> bool:
    """Whether a piece is what the concept says."""
    if concept.category == "tempo":
        return tempo_fits(truth.tempo, concept)
    if concept.category == "key":
        return truth.mode in concept.parts and concept.tonic in (None, truth.key)
    has = {"genre": (truth.genre,), "mood": (truth.mood,), "instrument": truth.instruments}
    return any(part in has.get(concept.category, ()) for part in concept.parts)


def save_rates(path: Path, rates: ErrorRates) -> None:
    """Write error rates as JSON, beside those of other detectors and vocabularies that the file holds."""
    held = load_rates(path) if path.is_file() and path.stat().st_size else []
    others = [one for one in held if (one.detector, one.vocabulary) != (rates.detector, rates.vocabulary)]
    write_json(path, [one.to_dict() for one in (*others, rates)])


def load_rates(path: Path = SHIPPED_ERROR_RATES) -> list[ErrorRates]:
    """Read what `save_rates` wrote; EvaluationError where it is something else."""
    try:
        return [_rates(told) for told in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} holds no error rates ({error}); write them with plaudit concepts") from None


def rates_of(detector: Detector, vocabulary: Vocabulary, known: Sequence[ErrorRates]) -> ErrorRates | None:
    """Those of this very detector and vocabulary, or None where they were not measured."""
    asked = (detector.identity, vocabulary.digest)
    return next((rates for rates in known if (rates.detector, rates.vocabulary) == asked), None)


def _other(clips: Sequence[SyntheticClip], number: int) -> SyntheticClip:
    return clips[(number + 1) % len(clips)]


def _rates(told: dict[str, Any]) -> ErrorRates:
    return ErrorRates(
        **{name: told[name] for name in ("detector", "vocabulary", "measured_on")},
        missed={category: Rate(**rate) for category, rate in told["missed"].items()},
        false={category: Rate(**rate) for category, rate in told["false"].items()},
        right=Interval(**told["right"]),
        other=Interval(**told["other"]),
    )

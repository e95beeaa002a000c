"""How often a detector is wrong, measured on clips whose truth is known, and the figures that come with the package.

Clips of the embedded world, clean and captioned rightly, are asked for what their own caption names, which is there,
and for what the caption of another clip names and they have not. So the figures are of the very questions that concept
coverage asks. Ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from plaudit.assets import write_json
from plaudit.corpus.embedded.source import EmbeddedClip, EmbeddedCorpus
from plaudit.corpus.embedded.truth import Truth
from plaudit.embedded.probes import round_trip
from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.coverage import covered
from plaudit.evaluate.concepts.detectors import Detector, tempo_fits
from plaudit.evaluate.concepts.prompts import concepts_in
from plaudit.evaluate.concepts.vocabulary import Concept, Vocabulary
from plaudit.evaluate.listening import clip_of_wave
from plaudit.evaluate.statistics import Interval, bootstrap_mean
from plaudit.types import Codec

SHIPPED = Path(__file__).with_name("error_rates.json")
SEED = 811
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

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def measure_errors(
    detector: Detector,
    vocabulary: Vocabulary,
    clips: int,
    seconds: float,
    progress: Progress,
    codec: Codec | None = None,
    seed: int = SEED,
) -> ErrorRates:
    """Ask `detector` about `clips` embedded clips of `seconds` each; at least two.

    With a codec the clips are heard as it returns them, which is how generated clips sound.
    """
    if clips < 2:
        raise EvaluationError(f"{clips} clips are too few to measure a detector on; take at least 2")
    corpus = EmbeddedCorpus(clips, seconds, seed, flawed_share=0.0, miscaptioned_share=0.0)
    missed: dict[str, list[bool]] = {}
    false: dict[str, list[bool]] = {}
    right, other, generator = [], [], torch.Generator().manual_seed(seed)
    for number, clip in enumerate(corpus.clips):
        wave = torch.from_numpy(corpus.render(clip))
        if codec is not None:
            with torch.inference_mode():
                wave = round_trip(wave[None], codec, generator)[0]
        heard = clip_of_wave(wave, corpus.rate, clip.id)
        own = [c for c in concepts_in(clip.caption, vocabulary) if holds(c, clip.truth)]
        foreign = concepts_in(_other(corpus.clips, number).caption, vocabulary)
        of_own, of_foreign = covered(heard, own, detector), covered(heard, foreign, detector)
        for concept in (*of_own.found, *of_own.missed):
            missed.setdefault(concept.category, []).append(concept in of_own.missed)
        for concept in (*of_foreign.found, *of_foreign.missed):
            if not holds(concept, clip.truth):
                false.setdefault(concept.category, []).append(concept in of_foreign.found)
        right += [of_own.share] if of_own.share is not None else []
        other += [of_foreign.share] if of_foreign.share is not None else []
        progress(number + 1, clips)
    if not right or not other:
        raise EvaluationError("the vocabulary finds nothing in the captions of the embedded world; measure another way")
    return ErrorRates(
        detector=detector.identity,
        vocabulary=vocabulary.digest,
        measured_on=f"{clips} clean embedded clips of {seconds:g} s, corpus {seed}"
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
    write_json(path, [one.told() for one in (*others, rates)])


def load_rates(path: Path = SHIPPED) -> list[ErrorRates]:
    """Read what `save_rates` wrote; EvaluationError where it is something else."""
    try:
        return [_rates(told) for told in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} holds no error rates ({error}); write them with plaudit concepts") from None


def rates_of(detector: Detector, vocabulary: Vocabulary, known: Sequence[ErrorRates]) -> ErrorRates | None:
    """Those of this very detector and vocabulary, or None where they were not measured."""
    asked = (detector.identity, vocabulary.digest)
    return next((rates for rates in known if (rates.detector, rates.vocabulary) == asked), None)


def _other(clips: Sequence[EmbeddedClip], number: int) -> EmbeddedClip:
    return clips[(number + 1) % len(clips)]


def _rates(told: dict[str, Any]) -> ErrorRates:
    return ErrorRates(
        **{name: told[name] for name in ("detector", "vocabulary", "measured_on")},
        missed={category: Rate(**rate) for category, rate in told["missed"].items()},
        false={category: Rate(**rate) for category, rate in told["false"].items()},
        right=Interval(**told["right"]),
        other=Interval(**told["other"]),
    )

"""The share of a prompt's concepts that a detector finds in its clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from plaudit.evaluate.concepts.detectors import Detector
from plaudit.evaluate.concepts.prompts import concepts_in
from plaudit.evaluate.concepts.vocabulary import Concept, Vocabulary
from plaudit.evaluate.listening import HeardClip, clip_of_wave


@dataclass(frozen=True)
class Covered:
    """What of a prompt was found, what was missed, and what the detector has no ears for."""

    found: tuple[Concept, ...]
    missed: tuple[Concept, ...]
    unjudged: tuple[Concept, ...]

    @property
    def share(self) -> float | None:
        """Found of those judged; None where the prompt names nothing that the detector knows."""
        judged = len(self.found) + len(self.missed)
        return len(self.found) / judged if judged else None

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return {name: [str(concept) for concept in getattr(self, name)] for name in ("found", "missed", "unjudged")}


def covered(clip: HeardClip, concepts: Sequence[Concept], detector: Detector) -> Covered:
    """What of `concepts` the clip has."""
    known = [concept for concept in concepts if detector.knows(concept)]
    there = detector.found(clip, known) if known else []
    return Covered(
        tuple(c for c, found in zip(known, there, strict=True) if found),
        tuple(c for c, found in zip(known, there, strict=True) if not found),
        tuple(c for c in concepts if not detector.knows(c)),
    )


def coverage_by(detector: Detector, vocabulary: Vocabulary) -> Callable[[Tensor, int, str], float | None]:
    """(wave [T], rate, prompt) -> the share of the prompt's concepts that the detector hears in the wave."""

    def share(wave: Tensor, rate: int, prompt: str) -> float | None:
        return covered(clip_of_wave(wave, rate, prompt), concepts_in(prompt, vocabulary), detector).share

    return share

"""Concept coverage: the fraction of the concepts in a prompt that a detector finds in the clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from plaudit.evaluate.concepts.detectors import ConceptCoverage, concept_coverage
from plaudit.evaluate.concepts.vocabulary import concepts_in
from plaudit.evaluate.embeddings import CachedClip
from plaudit.evaluate.metrics import COVERAGES_DIFFER, ClipValues, Metric, MetricInputs


def compute(inputs: MetricInputs) -> ClipValues:
    """NaN for a clip whose prompt names no concept that the detector supports."""
    evaluators, coverages = inputs.evaluators, dict[CachedClip, ConceptCoverage]()
    assert evaluators.detector is not None and evaluators.vocabulary is not None
    detector, vocabulary = evaluators.detector, evaluators.vocabulary

    def measure(clip: CachedClip, prompt: str) -> float | None:
        clip.recording  # noqa: B018  # an unreadable clip fails, whatever its prompt names
        coverage = concept_coverage(clip, concepts_in(prompt, vocabulary), detector)
        coverages[clip] = coverage
        return coverage.fraction

    values = inputs.each(measure)
    notes = [_note(coverages.get(clip)) for clip in inputs.clips]
    return ClipValues(values, notes, lambda rows: _summary([coverages[inputs.clips[row]] for row in rows]))


def _note(coverage: ConceptCoverage | None) -> str:
    parts = {} if coverage is None else coverage.to_dict()
    return "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in parts.items() if names)


def _summary(coverages: Sequence[ConceptCoverage]) -> str:
    """Counts of detected concepts by category."""
    detected = Counter(concept.category for one in coverages for concept in one.detected)
    named = Counter(concept.category for one in coverages for concept in (*one.detected, *one.missed))
    parts = [", ".join(f"{category} {detected[category]} of {count}" for category, count in named.items())]
    if unsupported := sum(len(one.unsupported) for one in coverages):
        parts.append(f"{unsupported} that the detector does not support")
    if not named:
        parts.insert(0, "no prompt names a concept that the detector supports")
    return "; ".join(filter(None, parts))


METRIC = Metric("concepts", "Concept coverage", compute, needs=frozenset({"detector"}), caution=COVERAGES_DIFFER)

"""Concept detectors on clips with known truth, and the shipped error rates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from plaudit import loading
from plaudit.corpus.sources import synthetic_source
from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.concepts.detectors import (
    Detector,
    ErrorRate,
    ErrorRates,
    ZeroShotDetector,
    concept_coverage,
    load_rates,
    rates_of,
    save_rates,
    tempo_fits,
)
from plaudit.evaluate.concepts.vocabulary import Concept, concepts_in, key_concept, load_vocabulary, tempo_concept
from plaudit.evaluate.embeddings import AudioEncoder, clip_from_wave
from plaudit.registry import weights_digest
from plaudit.statistics import Interval
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.evaluators import ProbeDetector, holds
from plaudit.synthetic.probes import load_probes
from plaudit.synthetic.truth import Truth

VOCABULARY = load_vocabulary()
PIECE = Truth("jazz", "calm", ("piano", "upright bass"), 100, "A", "minor")


@cache
def probes() -> ProbeDetector:
    return ProbeDetector(load_probes(), weights_digest("probes"))


@cache
def zero_shot() -> ZeroShotDetector:
    clap = loading.CLAPS.load("synthetic")
    return ZeroShotDetector(AudioEncoder("synthetic", loading.CLAPS.identity("synthetic"), clap), clap, VOCABULARY)


def concept(prompt: str) -> Concept:
    (found,) = concepts_in(prompt, VOCABULARY)
    return found


def test_what_a_piece_has() -> None:
    for prompt in ("jazz", "calm", "piano", "bass", "100 bpm", "102 bpm", "mid-tempo", "slow", "A minor", "minor key"):
        assert holds(concept(prompt), PIECE), prompt
    for prompt in ("rock", "sad", "drums", "110 bpm", "200 bpm", "fast", "A major", "C minor", "major key", "violin"):
        assert not holds(concept(prompt), PIECE), prompt


def test_a_tempo_is_right_within_four_percent() -> None:
    assert tempo_fits(103.9, tempo_concept(100)) and not tempo_fits(104.1, tempo_concept(100))
    assert not tempo_fits(50.0, tempo_concept(100))


@pytest.mark.parametrize("detector", [probes, zero_shot])
def test_error_rates_match_the_shipped_ones(detector: object) -> None:
    """On clips of another corpus than the figures are of."""
    judge: Detector = detector()  # type: ignore[operator]
    known = rates_of(judge, VOCABULARY, load_rates())
    assert known is not None, "measure it again: plaudit concepts -o src/plaudit/evaluate/concepts/error_rates.json"
    found = synthetic_source(10.0).measure_detector(judge, VOCABULARY, 24, lambda done, total: None, seed=812)
    assert found.right.low - 0.05 < known.right.mean < found.right.high + 0.05
    assert found.right.mean > found.other.mean + 0.3
    for kind in ("missed", "false"):
        measured_rates, shipped_rates = getattr(found, kind).values(), getattr(known, kind).values()
        share = sum(rate.wrong for rate in measured_rates) / sum(rate.total for rate in measured_rates)
        assert share == pytest.approx(
            sum(r.wrong for r in shipped_rates) / sum(r.total for r in shipped_rates), abs=0.1
        )


def test_probes_support_concepts_of_the_synthetic_world_only() -> None:
    assert all(probes().supports(concept(p)) for p in ("jazz", "guitar", "slow", "93 bpm", "F# major", "minor key"))
    assert not any(probes().supports(concept(p)) for p in ("blues", "epic", "violin"))
    assert not probes().supports(Concept("gear", "theremin", ("theremin",)))


class Scripted:
    """A CLAP in which a text is close to a clip by the words that both have."""

    name, sample_rate, dim = "scripted", 8000, 4
    WORDS = ("rock", "sad", "fast", "A minor")

    def text(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[float(word in prompt) for word in self.WORDS] for prompt in prompts])

    def audio(self, wave: Tensor) -> Tensor:
        return torch.ones(len(wave), 4)


def test_the_zero_shot_detector_reports_per_clip_concepts_of_each_category() -> None:
    clap = Scripted()
    judge = ZeroShotDetector(AudioEncoder("scripted", "1", clap), clap, VOCABULARY)
    clip = clip_from_wave(torch.ones(8000), 8000, "clip")
    prompt = "fast sad rock in A minor at 150 bpm, jazz"
    found = concept_coverage(clip, [*concepts_in(prompt, VOCABULARY), key_concept("C", "major")], judge)
    assert [c.name for c in found.detected] == ["fast", "sad", "rock", "A minor", "150 bpm"]
    assert [c.name for c in found.missed] == ["jazz", "C major"]
    assert found.fraction == pytest.approx(5 / 7)
    assert judge.supports(concept("violin")) and judge.supports(concept("guitar"))
    assert not judge.supports(Concept("gear", "theremin", ("theremin",)))


def test_unsupported_concepts_are_reported_and_not_counted() -> None:
    corpus = SyntheticCorpus(1, 5.0, seed=3, flawed_fraction=0.0)
    clip = clip_from_wave(torch.from_numpy(corpus.render(corpus.clips[0])), corpus.rate, "clip")
    only = concept_coverage(clip, concepts_in("blues with violin", VOCABULARY), probes())
    assert only.fraction is None and [c.name for c in only.unsupported] == ["blues", "violin"]
    assert only.to_dict() == {"detected": [], "missed": [], "unsupported": ["genre: blues", "instrument: violin"]}
    assert concept_coverage(clip, [], probes()).fraction is None


def test_a_clip_that_is_too_short_is_an_error() -> None:
    clip = clip_from_wave(torch.ones(16000), 16000, "clip")
    with pytest.raises(AudioError, match=r"at least 2\.5 s"):
        concept_coverage(clip, concepts_in("jazz", VOCABULARY), probes())


def test_error_rates_are_stored_by_detector_and_vocabulary(tmp_path: Path) -> None:
    interval = Interval(0.5, 0.4, 0.6)
    one = ErrorRates("a", "v", "here", {"genre": ErrorRate(4, 1)}, {"genre": ErrorRate(0, 0)}, interval, interval)
    other = ErrorRates("b", "v", "here", {}, {}, interval, interval)
    file = tmp_path / "rates.json"
    for rates in (one, other, one):
        save_rates(file, rates)
    assert load_rates(file) == [other, one]
    assert one.missed["genre"].fraction == 0.25 and one.false["genre"].fraction is None
    file.write_text("[{}]")
    with pytest.raises(EvaluationError, match="holds no error rates"):
        load_rates(file)
    assert rates_of(probes(), VOCABULARY, [one, other]) is None

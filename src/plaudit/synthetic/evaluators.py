"""The synthetic world as a corpus of runs: clips, prompts, votes, true utility and a concept detector."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.audio import read_audio, resample
from plaudit.corpus.layouts import Listing
from plaudit.corpus.manifest import Corpus
from plaudit.corpus.shard_set import ShardSet
from plaudit.corpus.sources import CorpusSource, HeldOut, Rendering
from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.detectors import ErrorRate, ErrorRates, concept_coverage, tempo_fits
from plaudit.evaluate.concepts.vocabulary import Concept, Vocabulary, concepts_in
from plaudit.evaluate.embeddings import CachedClip, clip_from_wave
from plaudit.registry import weights_digest
from plaudit.reporting import Progress, no_progress
from plaudit.statistics import bootstrap_mean
from plaudit.storage import read_json, to_json, write_atomically
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.listeners import (
    Taste,
    VotePair,
    noise_ceiling,
    sample_system_pairs,
    sample_vote_pairs,
    sample_votes,
    utility,
)
from plaudit.synthetic.probes import (
    RATE,
    SHORTEST_PROBE_SECONDS,
    TEMPI,
    Measurement,
    Probes,
    load_probes,
    measure,
    round_trip,
)
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Codec, Vote

PROMPT_SEED, REFERENCE_SEED, ERROR_RATE_SEED = 7_000_001, 7_000_002, 811
"""Seeds of the corpora of prompts, of the reference, and of clips to measure detectors on; no model is trained on any
of them."""


class SyntheticSource(CorpusSource):
    """The synthetic world. Its probes and listeners are known exactly, so a run's effects can be measured."""

    truth_known = True
    licence = "Apache-2.0"
    label = "synthetic pieces"
    description = (
        "The whole pipeline in the synthetic world: small models, composed music, and simulated listeners whose true "
        "preferences are available. It demonstrates the method and makes no claim about real music."
    )

    @cached_property
    def corpus(self) -> SyntheticCorpus:
        """The clips to train on, flaws included."""
        s = self.settings
        return SyntheticCorpus(s.size, s.seconds, s.seed, s.flawed_fraction, s.miscaptioned_fraction)

    @cached_property
    def probes(self) -> Probes:
        """The perception of the simulated listeners, which no reward has access to."""
        return load_probes()

    def check(self) -> None:
        """Probes need clips of some length."""
        if self.settings.seconds < SHORTEST_PROBE_SECONDS:
            raise ValueError(
                f"listeners of the synthetic corpus need {SHORTEST_PROBE_SECONDS} seconds; raise corpus.seconds"
            )

    def card(self) -> str:
        """A description of the corpus."""
        s = self.settings
        return (
            f"{s.size:,} clips of {s.seconds:g} s of Plaudit's synthetic musical world (seed {s.seed}), "
            f"of which {s.flawed_fraction:.0%} have flaws and {s.miscaptioned_fraction:.0%} wrong captions. "
            "No recordings and no works of others are in it."
        )

    def count(self) -> int:
        """As the settings say."""
        return self.settings.size

    def listing(self, progress: Progress = no_progress) -> Listing:
        """All clips; none has a problem."""
        return Listing(self.corpus.name, self.corpus.entries())

    def open(self, manifest: Path | None = None) -> Corpus:
        """The clips, rendered when loaded."""
        return self.corpus

    def digest(self, manifest: Path | None = None) -> str | None:
        """The settings say everything."""
        return None

    def held_out(self, count: int, shards: ShardSet | None = None) -> HeldOut:
        """Captions of clean clips outside every training corpus."""
        clips = self._clean(count, PROMPT_SEED).clips
        return HeldOut([clip.caption for clip in clips], [clip.truth for clip in clips])

    def reference(
        self, count: int, shards: ShardSet | None = None, manifest: Path | None = None, codec: Codec | None = None
    ) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
        """`count` clean clips outside every training corpus."""
        corpus = self._clean(count, REFERENCE_SEED)
        return count, ((corpus.render(clip), corpus.rate) for clip in corpus.clips)

    def reference_label(self, count: int) -> str:
        """With the seed."""
        return f"{count} clean synthetic clips, seed {REFERENCE_SEED}"

    def _clean(self, size: int, seed: int) -> SyntheticCorpus:
        return SyntheticCorpus(size, self.settings.seconds, seed, flawed_fraction=0.0, miscaptioned_fraction=0.0)

    def save_truth(self, folder: Path) -> dict[str, Any]:
        """Write `truth.jsonl`; how many clips are flawed or wrongly captioned."""
        clips = self.corpus.clips
        rows = [{"id": c.id, "truth": c.truth.to_dict(), "flaws": c.flaws} for c in clips]
        write_atomically(folder / "truth.jsonl", "".join(to_json(row) + "\n" for row in rows))
        return {
            "miscaptioned": sum(clip.truth != clip.caption_truth for clip in clips),
            "flawed": sum(bool(clip.flaws) for clip in clips),
        }

    def flaws(self, folder: Path) -> dict[str, float]:
        """Fractions of clips with each flaw, and with a wrong caption."""
        lines = (folder / "truth.jsonl").read_text(encoding="utf-8").split("\n")
        truths = [json.loads(line) for line in lines if line]
        fractions = {name: sum(name in truth["flaws"] for truth in truths) / len(truths) for name in FLAWS}
        return fractions | {"miscaptioned": read_json(folder / "facts.json")["miscaptioned"] / len(truths)}

    def simulate_votes(
        self, counts: Mapping[str, int], seed: int, progress: Progress = no_progress
    ) -> tuple[dict[str, list[Vote]], dict[str, Any]]:
        """Votes by split; the listeners' taste, and of each split the noise ceiling and the fraction of ties."""
        pairs = {
            split: sample_vote_pairs([c for c in self.corpus.clips if c.split == split], count, seed, group=split)
            for split, count in counts.items()
        }
        voted = {clip.id for group in pairs.values() for pair in group for clip in (pair.a, pair.b)}
        clips = [clip for clip in self.corpus.clips if clip.id in voted]
        measured = self._measured(clips, progress)
        votes, facts = _votes(pairs, {clip.id: row for row, clip in enumerate(clips)}, measured, seed)
        return votes, facts

    def simulate_system_votes(
        self,
        renderings: Mapping[str, Sequence[Rendering]],
        counts: Mapping[str, int],
        seed: int,
        progress: Progress = no_progress,
    ) -> tuple[dict[str, list[Vote]], dict[str, Any], dict[str, float]]:
        """Votes by split on pairs of renderings of a prompt, facts about them, and the utility of every rendering."""
        clips = {clip.id: clip for clip in self.corpus.clips}
        every = [rendering for group in renderings.values() for rendering in group]
        measured, truths = self._measured_files(every, progress), [clips[r.prompted].caption_truth for r in every]
        pairs = {}
        for split, count in counts.items():
            by_prompt: dict[str, list[Rendering]] = {}
            for rendering in renderings[split]:
                by_prompt.setdefault(rendering.prompted, []).append(rendering)
            described = [clips[prompted].caption_truth for prompted in by_prompt]
            pairs[split] = sample_system_pairs(list(by_prompt.values()), described, count, seed, f"systems-{split}")
        votes, facts = _votes(pairs, {r.id: row for row, r in enumerate(every)}, measured, seed)
        utilities = utility(measured, truths, Taste()).tolist()
        return votes, facts, dict(zip([r.id for r in every], utilities, strict=True))

    def _measured(self, clips: list[SyntheticClip], progress: Progress) -> Measurement:
        parts = []
        for start in range(0, len(clips), 32):
            waves = np.stack([self.corpus.render(clip) for clip in clips[start : start + 32]])
            parts.append(measure(self.probes, torch.from_numpy(waves)))
            progress(min(start + 32, len(clips)), len(clips))
        return Measurement(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Measurement)))

    def _measured_files(self, renderings: Sequence[Rendering], progress: Progress) -> Measurement:
        clips, parts = {clip.id: clip for clip in self.corpus.clips}, []
        for number, rendering in enumerate(renderings, start=1):
            if rendering.file is None:
                wave = torch.from_numpy(self.corpus.render(clips[rendering.prompted]))
            else:
                wave = torch.from_numpy(resample(*read_audio(rendering.file), RATE))
            parts.append(measure(self.probes, wave[None]))
            progress(number, len(renderings))
        return Measurement(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Measurement)))

    def true_utility(self) -> Callable[[list[Tensor], Sequence[Any]], Tensor]:
        """(waves at 16 kHz, truths of their prompts) -> the simulated listeners' utility of each."""
        return lambda waves, truths: utility(measure(self.probes, torch.stack(waves)), truths)

    def detector(self) -> ProbeDetector:
        """The probes as a concept detector."""
        return ProbeDetector(self.probes, weights_digest("probes"))

    def measure_detector(
        self, detector: Any, vocabulary: Vocabulary, clips: int, progress: Progress, codec: Codec | None = None,
        seed: int = ERROR_RATE_SEED,
    ) -> ErrorRates:  # fmt: skip
        """Error rates of a detector on clean clips, at least two.

        Each clip is scored for the concepts of its own caption, which it has, and for those of another clip's caption
        that it lacks: the very questions of concept coverage. With a codec the clips are reconstructed by it first, as
        generated clips are. Ours.
        """
        if clips < 2:
            raise EvaluationError(f"{clips} clips are too few to measure a detector on; take at least 2")
        corpus, generator = self._clean(clips, seed), torch.Generator().manual_seed(seed)
        missed: dict[str, list[bool]] = {}
        false: dict[str, list[bool]] = {}
        right, other = [], []
        for number, clip in enumerate(corpus.clips):
            wave = torch.from_numpy(corpus.render(clip))
            if codec is not None:
                with torch.inference_mode():
                    wave = round_trip(wave[None], codec, generator)[0]
            cached = clip_from_wave(wave, corpus.rate, clip.id)
            present = [c for c in concepts_in(clip.caption, vocabulary) if holds(c, clip.truth)]
            foreign = concepts_in(corpus.clips[(number + 1) % clips].caption, vocabulary)
            of_present = concept_coverage(cached, present, detector)
            of_foreign = concept_coverage(cached, foreign, detector)
            for concept in (*of_present.detected, *of_present.missed):
                missed.setdefault(concept.category, []).append(concept in of_present.missed)
            for concept in (*of_foreign.detected, *of_foreign.missed):
                if not holds(concept, clip.truth):
                    false.setdefault(concept.category, []).append(concept in of_foreign.detected)
            right += [of_present.fraction] if of_present.fraction is not None else []
            other += [of_foreign.fraction] if of_foreign.fraction is not None else []
            progress(number + 1, clips)
        if not right or not other:
            raise EvaluationError(
                "the vocabulary finds nothing in the captions of the synthetic world; measure another way"
            )
        return ErrorRates(
            detector=detector.identity,
            vocabulary=vocabulary.digest,
            measured_on=f"{clips} clean synthetic clips of {self.settings.seconds:g} s, corpus {seed}"
            + ("" if codec is None else f", as the codec {codec.name} returns them"),
            missed={category: ErrorRate(len(wrong), sum(wrong)) for category, wrong in missed.items()},
            false={category: ErrorRate(len(wrong), sum(wrong)) for category, wrong in false.items()},
            right=bootstrap_mean(right, seed=0),
            other=bootstrap_mean(other, seed=0),
        )


def _votes(
    pairs: Mapping[str, Sequence[VotePair]], row_of: Mapping[str, int], measured: Measurement, seed: int
) -> tuple[dict[str, list[Vote]], dict[str, Any]]:
    """One vote per pair, by split; the taste, and of each split the noise ceiling and the fraction of ties.

    row_of: the row of each clip in `measured`.
    """
    taste = Taste()
    votes: dict[str, list[Vote]] = {}
    facts: dict[str, Any] = {"taste": asdict(taste)}
    for split, group in pairs.items():
        truths = [pair.truth for pair in group]
        utility_a, utility_b = (
            utility(measured.rows(torch.tensor([row_of[clip.id] for clip in side])), truths, taste)
            for side in ([pair.a for pair in group], [pair.b for pair in group])
        )
        votes[split] = sample_votes(group, utility_a, utility_b, seed)
        ties = sum(vote.winner == "tie" for vote in votes[split]) / len(votes[split])
        facts[split] = {"ceiling": noise_ceiling(utility_a, utility_b, votes[split]), "ties": ties}
    return votes, facts


class ProbeDetector:
    """The probes as a concept detector (plaudit.evaluate.concepts.detectors.Detector).

    A clip has the most probable genre, mood, tempo and key, and every instrument more probable than not. The probes
    support the synthetic world's concepts only, and were trained on its sound only.
    """

    def __init__(self, probes: Probes, digest: str) -> None:
        self._probes, self.identity = probes, f"probes {digest}"

    def supports(self, concept: Concept) -> bool:
        """Whether all its parts are facts of the synthetic world."""
        named = {"genre": GENRES, "mood": MOODS, "instrument": INSTRUMENTS, "key": MODES}
        if concept.category == "tempo":
            return concept.bpm is not None
        return concept.category in named and all(part in named[concept.category] for part in concept.parts)

    def detect(self, clip: CachedClip, concepts: Sequence[Concept]) -> list[bool]:
        """Whether each concept is in the clip, of 2.5 s at least."""
        measurement = measure(self._probes, clip.wave(RATE))
        return [_has(measurement, concept) for concept in concepts]


def probe_detector(*_: object) -> ProbeDetector:
    """The shipped probes as a detector; its concepts are fixed."""
    return ProbeDetector(load_probes(), weights_digest("probes"))


def _has(measurement: Measurement, concept: Concept) -> bool:
    if concept.category == "genre":
        return GENRES[int(measurement.genre[0].argmax())] in concept.parts
    if concept.category == "mood":
        return MOODS[int(measurement.mood[0].argmax())] in concept.parts
    if concept.category == "instrument":
        return any(float(measurement.instruments[0, INSTRUMENTS.index(part)]) > 0.5 for part in concept.parts)
    if concept.category == "tempo":
        return tempo_fits(TEMPI[int(measurement.tempo[0].argmax())], concept)
    if concept.tonic is None:
        return MODES[int(measurement.key[0].sum(0).argmax())] in concept.parts
    place = KEYS.index(concept.tonic) * len(MODES) + MODES.index(concept.parts[0])
    return int(measurement.key[0].flatten().argmax()) == place


def holds(concept: Concept, truth: Truth) -> bool:
    """Whether a piece has the concept."""
    if concept.category == "tempo":
        return tempo_fits(truth.tempo, concept)
    if concept.category == "key":
        return truth.mode in concept.parts and concept.tonic in (None, truth.key)
    has = {"genre": (truth.genre,), "mood": (truth.mood,), "instrument": truth.instruments}
    return any(part in has.get(concept.category, ()) for part in concept.parts)

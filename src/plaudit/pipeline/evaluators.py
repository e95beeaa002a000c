"""Held-out prompts and everybody who judges what models make of them: one panel for all stages and all sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit import loading
from plaudit.audio import read_audio, resample
from plaudit.evaluate.concepts.detectors import ProbeDetector, coverage_by
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary
from plaudit.evaluate.embeddings import Reference
from plaudit.evaluate.evaluator import Coverage, StageScores, TrueUtility, embed_audio, evaluate_clips
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import utility
from plaudit.synthetic.probes import Probes, measure
from plaudit.synthetic.truth import Truth
from plaudit.types import Embedder, Reward

PROMPT_SEED, REFERENCE_SEED = 7_000_001, 7_000_002
"""Seeds of the synthetic corpora that prompts and reference are drawn from; no training corpus may use them."""


@dataclass(frozen=True)
class HeldOut:
    """Prompts no stage was trained on, and what each asks for where that is known."""

    prompts: list[str]
    truths: list[Truth] | None = None


@dataclass(frozen=True)
class EvaluatorPanel:
    """Prompts, and who judges their clips. Whoever is None is not known here, and nobody stands in.

    identity: prompts and judges as plain data, names with digests: what tells scores of this panel from another's.
    """

    held_out: HeldOut
    reward: Reward
    clap: Embedder
    reference: Reference
    listeners: TrueUtility | None = None
    coverage: Coverage | None = None
    identity: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, clips: Sequence[Path], sets: Sequence[str] = ()) -> StageScores:
        """The scores of one clip per prompt, in the order of the prompts; `sets` are further metrics of the set."""
        waves, rates = zip(*(read_audio(path) for path in clips), strict=True)
        return evaluate_clips(
            [torch.from_numpy(wave) for wave in waves],
            rates[0],
            self.held_out.prompts,
            reward=self.reward,
            clap=self.clap,
            reference=self.reference,
            truths=self.held_out.truths,
            listeners=self.listeners,
            coverage=self.coverage,
            sets=sets,
        )


def synthetic_prompts(count: int, seconds: float) -> HeldOut:
    """Prompts of clean synthetic pieces outside every corpus."""
    clips = SyntheticCorpus(count, seconds, PROMPT_SEED, 0.0, 0.0).clips
    return HeldOut([clip.caption for clip in clips], [clip.truth for clip in clips])


def synthetic_reference(clap: Embedder, count: int, seconds: float, progress: Callable[[int, int], None]) -> np.ndarray:
    """What `clap` hears in clean synthetic pieces, [count, E]."""
    corpus = SyntheticCorpus(count, seconds, REFERENCE_SEED, 0.0, 0.0)
    parts = []
    for done, clip in enumerate(corpus.clips, start=1):
        wave = torch.from_numpy(resample(corpus.render(clip), corpus.rate, clap.sample_rate))
        parts.append(embed_audio(clap, [wave], clap.sample_rate))
        progress(done, count)
    return np.concatenate(parts)


def synthetic_listeners(probes: Probes) -> TrueUtility:
    """What the simulated listeners really feel about clips, given what each caption asked for."""

    def feel(waves: list[Tensor], truths: Sequence[Any]) -> Tensor:
        return utility(measure(probes, torch.stack(waves)), truths)

    return feel


def synthetic_coverage(probes: Probes) -> Coverage:
    """What the probes hear of a prompt's concepts: they know the synthetic world's alone."""
    return coverage_by(probe_detector(probes), load_vocabulary(SHIPPED_VOCABULARY))


def probe_detector(probes: Probes) -> ProbeDetector:
    """The probes as whoever hears concepts."""
    return ProbeDetector(probes, loading.weights_digest("probes"))

"""Held-out prompts and everybody who judges what models make of them: one panel for all stages and all sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.audio import read_audio, resample
from plaudit.corpus.sources import CorpusSource, HeldOut
from plaudit.evaluate.concepts.detectors import coverage_by
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary
from plaudit.evaluate.embeddings import Reference
from plaudit.evaluate.evaluator import Coverage, StageScores, TrueUtility, embed_audio, evaluate_clips
from plaudit.types import Embedder, Reward


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


def embed_clips(
    clap: Embedder, count: int, clips: Iterable[tuple[np.ndarray, int]], progress: Callable[[int, int], None]
) -> np.ndarray:
    """CLAP embeddings of `count` clips, (waveform, rate) each: [count, E]."""
    parts = []
    for done, (wave, rate) in enumerate(clips, start=1):
        resampled = torch.from_numpy(resample(wave, rate, clap.sample_rate))
        parts.append(embed_audio(clap, [resampled], clap.sample_rate))
        progress(done, count)
    return np.concatenate(parts)


def coverage_of(source: CorpusSource) -> Coverage | None:
    """Coverage of a prompt's concepts, by the corpus's detector if it has one."""
    detector = source.detector()
    return None if detector is None else coverage_by(detector, load_vocabulary(SHIPPED_VOCABULARY))

"""What a set of generated clips is worth: reward, text-audio agreement, concepts, distances, true utility."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.audio import resample
from plaudit.errors import AudioError, EvaluationError, PromptError, RunError
from plaudit.evaluate.distances import FrechetOfRows, frechet_between, gaussian
from plaudit.evaluate.embeddings import Reference
from plaudit.evaluate.results_table import MetricResult
from plaudit.evaluate.set_metrics import SET_METRICS, measure_set
from plaudit.reward.scoring import score_waves
from plaudit.statistics import Interval, bootstrap_replicates, centred_interval
from plaudit.storage import read_json, write_atomically, write_json
from plaudit.types import Embedder, Reward

Array = NDArray[np.float64]
TrueUtility = Callable[[list[Tensor], Sequence[Any]], Tensor]
"""The truth behind the reward, where it is known: (waves, what each caption asked for) -> utility [B]."""

Coverage = Callable[[Tensor, int, str], float | None]
"""(wave [T], rate, prompt) -> the share of the prompt's concepts that are heard; None where it names none."""

FRECHET_SEED = 20
"""One seed for all stages: with as many clips, their replicates are resampled alike and can be subtracted."""


@dataclass(frozen=True)
class StageScores:
    """The scores of one stage's clips, one row per prompt.

    prompts: B prompts, in the order of every array below.
    reward, clap: [B], predicted preference and cosine of text and audio embeddings.
    utility: [B], what the simulated listeners really feel; None where no truth is known.
    embeddings: [B, E], unit norm, of the audio.
    frechet: distance of the embeddings from the reference set.
    frechet_replicates: [R], the same for resampled clips; row r of two stages resamples the same prompts.
    concepts: [B], share of the prompt's concepts that are heard, NaN for a prompt that names none; None where nobody
    listened for them.
    sets: other metrics of the whole set, with their intervals.
    """

    prompts: list[str]
    reward: Array
    clap: Array
    utility: Array | None
    embeddings: Array
    frechet: float
    frechet_replicates: Array
    concepts: Array | None = None
    sets: list[MetricResult] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def frechet_interval(self) -> Interval:
        """The Frechet distance with its 95 % bootstrap interval over prompts."""
        return _floored(centred_interval(self.frechet, self.frechet_replicates))

    def save(self, folder: Path) -> None:
        """Write `scores.json` (what people read) and `embeddings.npz` (what only programs do) into `folder`."""
        buffer = io.BytesIO()
        np.savez(buffer, embeddings=self.embeddings, frechet_replicates=self.frechet_replicates)
        write_atomically(folder / "embeddings.npz", buffer.getvalue())
        # Last, because its presence says that the scores are complete.
        write_json(
            folder / "scores.json",
            {
                "prompts": self.prompts,
                "reward": self.reward.tolist(),
                "clap": self.clap.tolist(),
                "utility": None if self.utility is None else self.utility.tolist(),
                "frechet": self.frechet,
                "concepts": None if self.concepts is None else self.concepts.tolist(),
                "sets": [asdict(one) for one in self.sets],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> StageScores:
        """Read what `save` wrote, exactly; RunError where the folder does not hold whole scores."""
        scores = read_json(folder / "scores.json")
        try:
            with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
                embeddings, replicates = arrays["embeddings"], arrays["frechet_replicates"]
            return cls(
                prompts=scores["prompts"],
                reward=np.array(scores["reward"], dtype=np.float64),
                clap=np.array(scores["clap"], dtype=np.float64),
                utility=None if scores["utility"] is None else np.array(scores["utility"], dtype=np.float64),
                embeddings=embeddings,
                frechet=scores["frechet"],
                frechet_replicates=replicates,
                concepts=None if scores["concepts"] is None else np.array(scores["concepts"], dtype=np.float64),
                sets=[MetricResult(**one) for one in scores["sets"]],
            )
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise RunError(f"the scores in {folder} are damaged ({error}); delete it and evaluate again") from None


def evaluate_clips(
    waves: list[Tensor],
    rate: int,
    prompts: list[str],
    *,
    reward: Reward,
    clap: Embedder,
    reference: Reference,
    truths: Sequence[Any] | None = None,
    listeners: TrueUtility | None = None,
    coverage: Coverage | None = None,
    sets: Sequence[str] = (),
    resamples: int = 300,
) -> StageScores:
    """Score clips [T] each at `rate` Hz against their prompts, and as a set against `reference`, of the same CLAP.

    Utility needs both `truths`, one per prompt, and `listeners`. sets: names of `SET_METRICS` to measure besides the
    Frechet distance; one that these clips are not enough for has no value and says why. Raises PromptError where the
    counts differ, AudioError where a clip is not finite.
    """
    if len(waves) < 2 or len(waves) != len(prompts) or (truths is not None and len(truths) != len(prompts)):
        raise PromptError(f"{len(waves)} clips for {len(prompts)} prompts; evaluation needs one each, at least two")
    for index, wave in enumerate(waves):
        if wave.numel() == 0 or not torch.isfinite(wave).all():
            raise AudioError(f"clip {index} ({prompts[index]!r}) is empty or not finite; generate it again")
    with torch.inference_mode():
        rewards = score_waves(reward, waves, rate, prompts).numpy()
        embeddings = embed_audio(clap, waves, rate)
        texts = _numbers(clap.text(prompts))  # [B, E]
        known = truths is not None and listeners is not None
        utility = _numbers(listeners(waves, truths)) if known else None  # type: ignore[misc,arg-type]
        concepts = None
        if coverage is not None:
            shares = [coverage(wave, rate, prompt) for wave, prompt in zip(waves, prompts, strict=True)]
            concepts = np.array(shares, dtype=np.float64)
    target = reference.gaussian
    return StageScores(
        prompts=list(prompts),
        reward=rewards,
        clap=(embeddings * texts).sum(axis=1),
        utility=utility,
        embeddings=embeddings,
        frechet=frechet_between(gaussian(embeddings), target),
        frechet_replicates=bootstrap_replicates(FrechetOfRows(embeddings, target), len(waves), FRECHET_SEED, resamples),
        concepts=concepts,
        sets=[_measured(name, embeddings, reference) for name in sets],
    )


def _measured(name: str, embeddings: Array, reference: Reference) -> MetricResult:
    metric = SET_METRICS[name]
    try:
        return measure_set(metric, embeddings, reference, reference.embedding)
    except EvaluationError as error:
        return MetricResult(name, None, None, None, len(embeddings), metric.better, reference.embedding, str(error))


def embed_audio(clap: Embedder, waves: list[Tensor], rate: int, batch_size: int = 16) -> Array:
    """CLAP embeddings [B, E] of clips [T] at `rate` Hz, whatever their lengths."""
    heard = [torch.from_numpy(resample(wave.float().cpu().numpy(), rate, clap.sample_rate)) for wave in waves]
    by_length: dict[int, list[int]] = {}
    for index, wave in enumerate(heard):
        by_length.setdefault(len(wave), []).append(index)
    embeddings = np.empty((len(heard), clap.dim))
    with torch.inference_mode():
        for indices in by_length.values():
            for start in range(0, len(indices), batch_size):
                batch = indices[start : start + batch_size]
                embeddings[batch] = _numbers(clap.audio(torch.stack([heard[i] for i in batch])))
    return embeddings


def frechet_difference(a: StageScores, b: StageScores) -> Interval:
    """How much farther a lies from the reference than b, resampling the same prompts in both."""
    if a.frechet_replicates.shape != b.frechet_replicates.shape or len(a) != len(b):
        raise ValueError("Frechet distances are compared over the same prompts and as many resamples")
    return centred_interval(a.frechet - b.frechet, a.frechet_replicates - b.frechet_replicates)


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().numpy().astype(np.float64)


def _floored(interval: Interval) -> Interval:
    """A distance is not negative, though its centred interval may reach below."""
    return Interval(interval.mean, max(0.0, interval.low), interval.high)

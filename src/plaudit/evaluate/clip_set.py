"""The evaluation of any generator's clips: every metric of each clip and of the set, and what could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.concepts.detectors import Detector, concept_coverage
from plaudit.evaluate.concepts.vocabulary import Vocabulary, concepts_in
from plaudit.evaluate.distances import Array, frechet_per_clip
from plaudit.evaluate.embeddings import (
    AudioEncoder,
    EmbeddingCache,
    Reference,
    clip_from_file,
    content_digest,
    embed_with_all,
    with_file_name,
)
from plaudit.evaluate.prompt_matching import PromptClip
from plaudit.evaluate.results_table import Better, ClipRow, Evaluation, MetricResult, column, values_of
from plaudit.evaluate.set_metrics import BOOTSTRAP_SEED, SET_METRICS, measure_set
from plaudit.reward.scoring import Clip, ScoreCache, score_clips
from plaudit.statistics import bootstrap_mean
from plaudit.types import Embedder, Reward

REWARD, CLAP, CONCEPTS, CLIP_FRECHET = "reward", "clap", "concepts", "clip-frechet"
CLIP_METRICS: dict[str, Better] = {REWARD: "higher", CLAP: "higher", CONCEPTS: "higher", CLIP_FRECHET: "lower"}
METRICS = (*CLIP_METRICS, *SET_METRICS)
"""Every metric by name, in the order of tables."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluators:
    """Who judges the clips. clap hears and `reader` reads, the same model; listeners: the encoders of the distances."""

    reward: Reward
    clap: AudioEncoder
    reader: Embedder
    detector: Detector
    vocabulary: Vocabulary
    listeners: Sequence[AudioEncoder]


@dataclass(frozen=True)
class _Judged:
    """A clip's row, and what each listener heard in it."""

    row: ClipRow
    embeddings: dict[str, Array]


def check_metrics(wanted: Sequence[str]) -> None:
    """EvaluationError for a name that no metric has."""
    for name in wanted:
        if name not in METRICS:
            raise EvaluationError(f"no metric {name!r}; take of {', '.join(METRICS)}")


def evaluate_clips_and_set(
    asked: Sequence[PromptClip],
    judges: Evaluators,
    references: Sequence[Reference],
    settings: dict[str, Any],
    *,
    wanted: Sequence[str] | None = None,
    scores: ScoreCache | None = None,
    embeddings: EmbeddingCache | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measure `wanted` metrics of the clips in `asked`; None stands for all, without a reference all that need none.

    references: one per listener, in their order, or none at all. scores, embeddings: what was computed before.
    A clip that one metric cannot judge has an error and is in no mean, so that all are over the same clips. A metric
    that cannot be measured is an EvaluationError where it was wanted, else a result without a value that says why.
    """
    check_metrics(wanted or ())
    names = [name for name in METRICS if (name in wanted if wanted is not None else references or _alone(name))]
    paired: Sequence[Reference | None] = references or [None] * len(judges.listeners)
    heard_by = list(zip(judges.listeners, paired, strict=True))
    rewards = _rewards(asked, judges.reward, scores, progress) if REWARD in names else {}
    judged = [
        _judged(entry, judges, names, rewards.get(place), embeddings)
        for place, entry in enumerate(_told(asked, progress))
    ]
    if all(one.row.error is not None for one in judged):
        raise EvaluationError(f"none of {len(judged)} clips can be evaluated; the first: {judged[0].row.error}")
    for listener, reference in heard_by:
        if CLIP_FRECHET in names and reference is not None:
            judged = _with_clip_frechet(judged, listener, reference)
    metrics = [result for name in names for result in _results(name, judged, heard_by, wanted is not None)]
    rows = [one.row for one in judged]
    unreferenced = ["no reference music: nothing is compared with it"] if wanted is None and not references else []
    return Evaluation(rows, metrics, [*unreferenced, *_notes(rows)], settings)


def _alone(name: str) -> bool:
    """Whether a metric is of the clips alone, without a reference."""
    return SET_METRICS[name].needs == "nothing" if name in SET_METRICS else name != CLIP_FRECHET


def _rewards(
    asked: Sequence[PromptClip], reward: Reward, cache: ScoreCache | None, progress: Progress
) -> dict[int, float | str]:
    """The reward of each clip that there is, by its place in `asked`, or its error."""
    there = [
        (place, Clip(entry.file, entry.prompt))
        for place, entry in enumerate(asked)
        if entry.file is not None and entry.error is None
    ]
    scored = score_clips([clip for _, clip in there], reward, cache, progress)
    return {
        place: row.score if row.score is not None else str(row.error)
        for (place, _), row in zip(there, scored, strict=True)
    }


def _told(asked: Sequence[PromptClip], progress: Progress) -> Iterator[PromptClip]:
    for number, entry in enumerate(asked, start=1):
        yield entry
        progress(number, len(asked))


def _judged(
    entry: PromptClip,
    judges: Evaluators,
    names: Sequence[str],
    reward: float | str | None,
    cache: EmbeddingCache | None,
) -> _Judged:
    """One clip, heard and judged by all but the reward, whose score is known; or why it can't be."""
    if entry.file is None or entry.error is not None:
        return _Judged(_failed(entry, entry.error or "it has no file"), {})
    if isinstance(reward, str):
        return _Judged(_failed(entry, reward), {})
    values: dict[str, float | None] = {} if reward is None else {REWARD: reward}
    details: dict[str, Any] = {}
    heard: dict[str, Array] = {}
    try:
        clip = clip_from_file(entry.file, cache)
        if CLAP in names:
            values[CLAP] = float(clip.embedding(judges.clap) @ _read(judges.reader, entry.prompt))
        if CONCEPTS in names:
            clip.wave(
                judges.clap.embedder.sample_rate
            )  # one that can't be read has an error, whatever its prompt names
            found = concept_coverage(clip, concepts_in(entry.prompt, judges.vocabulary), judges.detector)
            values[CONCEPTS], details[CONCEPTS] = found.share, found.to_dict()
        if any(name in SET_METRICS or name == CLIP_FRECHET for name in names):
            heard = embed_with_all(clip, judges.listeners)
    except AudioError as error:
        return _Judged(_failed(entry, with_file_name(entry.file, error)), {})
    return _Judged(ClipRow(entry.id, entry.prompt, str(entry.file), values, None, details, entry.seed), heard)


def _failed(entry: PromptClip, error: str) -> ClipRow:
    return ClipRow(entry.id, entry.prompt, "" if entry.file is None else str(entry.file), {}, error, seed=entry.seed)


def _read(reader: Embedder, prompt: str) -> Array:
    with torch.inference_mode():
        return reader.text([prompt])[0].float().cpu().numpy().astype(np.float64)


def _with_clip_frechet(judged: Sequence[_Judged], listener: AudioEncoder, reference: Reference) -> list[_Judged]:
    """The clips, each that was heard with its own distance from the reference."""
    heard = [one.embeddings[listener.digest][None] for one in judged if one.row.error is None]
    distances = iter(frechet_per_clip(heard, reference.gaussian))
    name = column(CLIP_FRECHET, listener.name)
    return [
        replace(one, row=replace(one.row, values={**one.row.values, name: float(next(distances))}))
        if one.row.error is None
        else one
        for one in judged
    ]


def _results(
    name: str, judged: Sequence[_Judged], heard_by: Sequence[tuple[AudioEncoder, Reference | None]], wanted: bool
) -> list[MetricResult]:
    """A metric of the whole set: one result, or one per listener where it is one of embeddings."""
    rows = [one.row for one in judged if one.row.error is None]
    if name in (REWARD, CLAP):
        return [_mean(name, None, values_of(rows, name))]
    if name == CONCEPTS:
        return [_concepts(rows)]
    found = []
    for listener, reference in heard_by:
        try:
            if name in SET_METRICS:
                heard = np.stack([one.embeddings[listener.digest] for one in judged if one.row.error is None])
                found.append(measure_set(SET_METRICS[name], heard, reference, listener.name))
            elif reference is None:
                raise EvaluationError(f"{name} compares with reference music; give --reference")
            else:
                found.append(_mean(name, listener.name, values_of(rows, column(name, listener.name))))
        except EvaluationError as error:
            if wanted:
                raise
            better = SET_METRICS[name].better if name in SET_METRICS else CLIP_METRICS[name]
            found.append(MetricResult(name, None, None, None, 0, better, listener.name, str(error)))
    return found


def _concepts(rows: Sequence[ClipRow]) -> MetricResult:
    """The mean coverage, with what was found of each category as its note."""
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        for verdict, told in row.details[CONCEPTS].items():
            for concept in told:
                counted.setdefault(concept.split(": ")[0], Counter())[verdict] += 1
    judged = {name: times["detected"] + times["missed"] for name, times in counted.items()}
    parts = [f"{name} {counted[name]['found']} of {asked}" for name, asked in judged.items() if asked]
    if failed := sum(times["unsupported"] for times in counted.values()):
        parts.append(f"{failed} that the detector does not know")
    values = values_of(rows, CONCEPTS)
    if not values:
        told = "; ".join(["no prompt names a concept that the detector knows", *parts])
        return MetricResult(CONCEPTS, None, None, None, 0, CLIP_METRICS[CONCEPTS], None, told)
    mean = _mean(CONCEPTS, None, values)
    return replace(mean, note="; ".join([*([mean.note] if mean.note else []), ", ".join(parts)]))


def _mean(name: str, listener: str | None, values: Sequence[float]) -> MetricResult:
    better = CLIP_METRICS[name]
    if len(values) == 1:
        return MetricResult(name, values[0], None, None, 1, better, listener, "no interval: one clip")
    mean = bootstrap_mean(values, BOOTSTRAP_SEED)
    note = f"all {len(values)} clips have the same value" if np.ptp(values) == 0 else ""
    return MetricResult(name, mean.mean, mean.low, mean.high, len(values), better, listener, note)


def _notes(rows: Sequence[ClipRow]) -> list[str]:
    failed = [row for row in rows if row.error is not None]
    notes = [f"{row.id}: {row.error}" for row in failed]
    if failed:
        notes.append(f"{len(failed)} of {len(rows)} clips have no values and are in no mean")
    by_content: dict[str, list[str]] = {}
    for row in rows:
        if row.error is None:
            by_content.setdefault(content_digest(Path(row.file)), []).append(row.id)
    for same in by_content.values():
        if len(same) > 1:
            notes.append(f"{len(same)} clips are the same file and count each: {', '.join(same[:3])}")
    unnamed = sum(row.values.get(CONCEPTS, 0.0) is None for row in rows if row.error is None)
    if unnamed:
        notes.append(f"{unnamed} prompts name no concept that can be judged and are not in the mean of concepts")
    return notes

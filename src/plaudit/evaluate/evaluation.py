"""The evaluation of clips: every metric of each clip and of the set, with errors of clips that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.corpus.sources import HeldOut
from plaudit.errors import AudioError, EvaluationError, PlauditError, PromptError
from plaudit.evaluate.concepts.detectors import Detector, QuestionAnswerer
from plaudit.evaluate.concepts.vocabulary import Vocabulary
from plaudit.evaluate.embeddings import (
    AudioEncoder,
    CachedClip,
    EmbeddingCache,
    Reference,
    clip_from_file,
    content_digest,
    embed_clips,
    with_file_name,
)
from plaudit.evaluate.metrics import (
    METRIC_SEED,
    METRICS,
    NAMES,
    ClipValues,
    Metric,
    MetricInputs,
    describe,
    metric_called,
    metrics_named,
)
from plaudit.evaluate.prompt_matching import PromptClip
from plaudit.evaluate.values import FAILED, VALUES, SetValue, Values, metric_key, replicates_key
from plaudit.files import path_in
from plaudit.reporting import Progress
from plaudit.reward.scoring import ScoreCache
from plaudit.statistics import Array
from plaudit.storage import write_json
from plaudit.tables import write_table
from plaudit.types import Reward

TrueUtility = Callable[[list[Tensor], Sequence[Any]], Tensor]
"""Where the truth behind the reward is known: (waves [T], what each prompt describes) -> utility [B]."""

CLIPS, SUMMARY = "clips.csv", "summary.json"
FORMAT = 2

IN_MEMORY = 256
"""Clips up to which decoded audio stays in memory for the next metric (ours); of more, each metric decodes again."""


@dataclass(frozen=True)
class Evaluators:
    """The models that metrics use. Metrics that need one that is None are skipped.

    clap: encodes audio and text. encoders: of the distances. answerer: of questions on clips; tags: the genre,
    instrument and mood of each prompt, None where the vocabulary finds them in its text. identity: names with digests,
    as plain data, by which values by these evaluators are recognized.
    """

    reward: Reward
    clap: AudioEncoder
    encoders: tuple[AudioEncoder, ...] = ()
    detector: Detector | None = None
    vocabulary: Vocabulary | None = None
    utility: TrueUtility | None = None
    answerer: QuestionAnswerer | None = None
    tags: Mapping[str, dict[str, str]] | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def with_audio_language_model(
    evaluators: Evaluators, name: str, tags: Path | None, device: torch.device
) -> Evaluators:
    """The same with an audio language model by name, and the tags in a table."""
    from plaudit.evaluate.concepts.language_model import load_audio_language_model
    from plaudit.evaluate.metrics.challenge_concepts import read_tags

    answerer = load_audio_language_model(name, device)
    return replace(evaluators, answerer=answerer, tags=None if tags is None else read_tags(tags))


@dataclass(frozen=True)
class Evaluation:
    """The values of a set of clips.

    clips: one for each prompt's clip; one with an error has no values and is in no mean. notes: what a reader must
    know of the clips (missing, unreadable, duplicate), a line each. settings: with what they were measured.
    """

    values: Values
    clips: list[PromptClip]
    notes: list[str]
    settings: Mapping[str, Any]

    @property
    def failed(self) -> list[PromptClip]:
        """The clips without values."""
        return [clip for clip in self.clips if clip.error is not None]

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The rows of metrics over all clips, with `key`, the metric's name in wide tables."""
        rows = self.values.select(prompt_id="").rows()
        return [{"key": metric_key(row["metric"], row["embedding"]), **row} for row in rows]

    def table(self) -> tuple[list[str], list[dict[str, Any]]]:
        """(columns, rows) of clips.csv: a row per clip with id, prompt, seed (where that of every clip is known), file,
        its metrics, and its error where any clip has one."""
        present = [clip for clip in self.clips if clip.file is not None]
        seeded = bool(present) and all(clip.seed is not None for clip in present)
        about = ["id", "prompt", *(["seed"] if seeded else []), "file"]
        rows: list[dict[str, Any]] = [{name: getattr(clip, name) for name in about} for clip in self.clips]
        keys = list[str]()
        for metric, embedding in dict.fromkeys((row["metric"], row["embedding"]) for row in self.sets):
            values = self.values.clip(metric, embedding=embedding)
            if len(values):
                keys.append(metric_key(metric, embedding))
                for row, value in zip(rows, values, strict=True):
                    row[keys[-1]] = None if np.isnan(value) else float(value)
        for row, clip in zip(rows, self.clips, strict=True):
            row["file"] = "" if clip.file is None else str(clip.file)
            if self.failed:
                row["error"] = clip.error
        return [*about, *keys, *(["error"] if self.failed else [])], rows

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        scored = len(self.clips) - len(self.failed)
        columns = ("key", "metric", "embedding", "value", "low", "high", "clips", "note")
        return {
            "format": FORMAT,
            "clips": {"total": len(self.clips), "scored": scored},
            "metrics": [
                {**{name: row[name] for name in columns}, "better": metric_called(row["metric"]).better}
                for row in self.sets
            ],
            "rows": self.table()[1],
            "notes": self.notes,
            "settings": self.settings,
        }

    def save(self, folder: Path) -> None:
        """Write `values.parquet`, the same values of clips as `clips.csv`, and last `summary.json`.

        Files are named relative to `folder`, or by absolute paths.
        """
        placed = replace(
            self,
            values=self.values.with_files(lambda file: path_in(folder, file)),
            clips=[replace(c, file=c.file and Path(path_in(folder, c.file))) for c in self.clips],
        )
        placed.values.write(folder / VALUES)
        write_table(folder / CLIPS, *placed.table())
        write_json(folder / SUMMARY, placed.summary())


def default_metrics(
    evaluators: Evaluators, references: Sequence[Reference], truths: Sequence[Any] | None = None
) -> list[Metric]:
    """The built-in metrics that these evaluators support, and those that will only have a note on the reference."""
    reference = references[0] if references else None
    return [
        metric
        for metric in map(METRICS.load, NAMES)
        if not metric.missing(evaluators, reference, truths)
        or (reference is not None and "reference_embeddings" in metric.needs)
    ]


def evaluate_clips(
    entries: Sequence[PromptClip],
    evaluators: Evaluators,
    references: Sequence[Reference],
    metrics: Sequence[Metric] | None = None,
    *,
    strict: bool = True,
    system: str = "",
    condition: str = "",
    truths: Sequence[Any] | None = None,
    scores: ScoreCache | None = None,
    embeddings: EmbeddingCache | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measure `metrics` of the clips in `entries`; None stands for all that can be measured.

    references: one per encoder of the distances, in their order, or none at all. truths: one per entry, or unknown.
    scores, embeddings: caches. A clip that one metric fails for has an error and is in no mean, so that all are over
    the same clips. A metric that cannot be measured is an EvaluationError where it was named and `strict`, else a value
    without a number and a note why.
    """
    run = _Run(list(entries), evaluators, truths, scores, progress)
    run.clips = [
        None if entry.file is None else clip_from_file(entry.file, embeddings, keep=len(entries) <= IN_MEMORY)
        for entry in entries
    ]
    chosen = default_metrics(evaluators, references, truths) if metrics is None else list(metrics)
    nothing: list[Reference | None] = [None] * len(evaluators.encoders)
    paired = list(zip(evaluators.encoders, references or nothing, strict=True))
    once: list[tuple[AudioEncoder | None, Reference | None]] = [(None, None)]
    run.total = len(entries) * (
        sum(metric.scope == "clip" for metric in chosen) + any(metric.per_embedding for metric in chosen) * len(paired)
    )
    if any(metric.per_embedding for metric in chosen):
        for of_distances in evaluators.encoders:
            run.embed(of_distances)
    measured = list[_Measured]()
    for metric in sorted(chosen, key=lambda metric: metric.scope):  # clips first: whichever fails is in no set
        for encoder, reference in paired if metric.per_embedding else once:
            try:
                if reason := metric.missing(evaluators, reference, truths):
                    raise EvaluationError(reason)
                measured.append(_Measured(metric, encoder, run.measure(metric, encoder, reference)))
            except EvaluationError as error:
                if metrics is not None and strict:
                    raise
                measured.append(_Measured(metric, encoder, SetValue(None, note=str(error))))
    run.check_any_left()
    order = {metric.name: place for place, metric in enumerate(chosen)}
    rows, replicates = list[dict[str, Any]](), dict[str, Array]()
    for one in sorted(measured, key=lambda one: order[one.metric.name]):
        where = {"system": system, "condition": condition, "metric": one.metric.name, "embedding": one.embedding}
        rows += [{**where, **row} for row in run.clip_rows(one)]
        value = run.set_value(one)
        rows.append({**where, **{name: getattr(value, name) for name in ("value", "low", "high", "clips", "note")}})
        if value.replicates is not None:
            replicates[replicates_key(**where)] = value.replicates
    unreferenced = ["no reference music: nothing is compared with it"] if metrics is None and not references else []
    notes = [*unreferenced, *_notes(run.entries), *run.notes(measured)]
    return Evaluation(Values.of_rows(rows, replicates, describe(chosen)), run.entries, notes, dict(settings or {}))


@dataclass(frozen=True)
class _Measured:
    """A metric by one encoder, or by none: values of all entries, or of the set."""

    metric: Metric
    encoder: AudioEncoder | None
    result: ClipValues | SetValue

    @property
    def embedding(self) -> str:
        return "" if self.encoder is None else self.encoder.name


@dataclass
class _Run:
    """The entries of an evaluation; failed ones get an error and are skipped from then on."""

    entries: list[PromptClip]
    evaluators: Evaluators
    truths: Sequence[Any] | None
    scores: ScoreCache | None
    progress: Progress
    clips: list[CachedClip | None] = field(default_factory=list)
    embeddings: dict[str, Array] = field(default_factory=dict)
    total: int = 0
    done: int = 0

    @property
    def rows(self) -> list[int]:
        """The entries that have not failed."""
        return [row for row, entry in enumerate(self.entries) if entry.error is None and entry.file is not None]

    def check_any_left(self) -> None:
        """AudioError where all have failed."""
        if not self.rows:
            first = self.entries[0].error
            raise AudioError(f"none of {len(self.entries)} clips can be evaluated; the first: {first}")

    def embed(self, encoder: AudioEncoder) -> None:
        """Embeddings [N, E] of all entries, NaN where there is none."""
        rows, failures = self.rows, dict[int, str]()
        self.check_any_left()
        embeddings = embed_clips([self.clips[row] for row in rows], encoder, failures, self._advance)  # type: ignore[misc]
        self._fail(rows, failures)
        self.embeddings[encoder.digest] = np.full((len(self.entries), embeddings.shape[1]), np.nan)
        self.embeddings[encoder.digest][rows] = embeddings

    def measure(
        self, metric: Metric, encoder: AudioEncoder | None, reference: Reference | None
    ) -> ClipValues | SetValue:
        """A metric of the entries that have not failed; values of clips are spread over all entries."""
        rows = self.rows
        self.check_any_left()
        inputs = MetricInputs(
            clips=[self.clips[row] for row in rows],  # type: ignore[misc]
            prompts=[self.entries[row].prompt for row in rows],
            evaluators=self.evaluators,
            truths=None if self.truths is None else [self.truths[row] for row in rows],
            embeddings=np.empty((len(rows), 0)) if encoder is None else self.embeddings[encoder.digest][rows],
            compared_with=reference,
            scores=self.scores,
            progress=self._advance,
        )
        try:
            result = metric.compute(inputs)
        except PlauditError:
            raise
        except Exception as error:
            if metric.name in NAMES:
                raise
            raise EvaluationError(f"metric {metric.name} fails: {error!r}; correct its code") from error
        self._fail(rows, inputs.failures)
        if isinstance(result, SetValue):
            return replace(result, clips=len(rows))
        result = result if isinstance(result, ClipValues) else ClipValues(np.asarray(result, dtype=np.float64))
        if result.values.shape != (len(rows),):
            shape = list(result.values.shape)
            raise EvaluationError(
                f"metric {metric.name} gave values of shape {shape} for {len(rows)} clips; correct it"
            )
        places, summary = {row: place for place, row in enumerate(rows)}, result.summary
        values = np.full(len(self.entries), np.nan)
        values[rows] = result.values
        notes = dict(zip(rows, result.notes, strict=True)) if result.notes else {}
        spread = [notes.get(row, "") for row in range(len(self.entries))]
        return ClipValues(values, spread, lambda chosen: summary([places[row] for row in chosen]))

    def _fail(self, rows: Sequence[int], failures: Mapping[int, str]) -> None:
        for place, reason in failures.items():
            entry = self.entries[rows[place]]
            assert entry.file is not None
            self.entries[rows[place]] = replace(entry, error=with_file_name(entry.file, reason))

    def _advance(self, done: int, total: int) -> None:
        self.progress(min(self.done + done, self.total), self.total)
        if done == total:
            self.done += total

    def clip_rows(self, one: _Measured) -> list[dict[str, Any]]:
        """A row per entry of a metric of clips."""
        if not isinstance(one.result, ClipValues):
            return []
        return [
            {
                "prompt_id": entry.id,
                "prompt": entry.prompt,
                "seed": entry.seed,
                "file": "" if entry.file is None else str(entry.file),
                "value": None if entry.error is not None or np.isnan(value) else float(value),
                "note": note if entry.error is None else f"{FAILED}{entry.error}",
            }
            for entry, value, note in zip(self.entries, one.result.values, one.result.notes, strict=True)
        ]

    def set_value(self, one: _Measured) -> SetValue:
        """The value of the set; of a metric of clips, their mean over those that have not failed."""
        if isinstance(one.result, SetValue):
            return one.result
        rows = self.rows
        values = one.result.values[rows]
        values, notes = values[~np.isnan(values)], [one.result.summary(rows)]
        if len(values) > 1:
            mean = one.metric.interval(values, METRIC_SEED)
            if np.ptp(values) == 0:
                notes.insert(0, f"all {len(values)} clips have the same value")
            return SetValue(mean.mean, mean.low, mean.high, None, "; ".join(filter(None, notes)), len(values))
        if len(values) == 1:
            notes.insert(0, "no interval: one clip")
        note = "; ".join(filter(None, notes))
        return SetValue(float(values[0]) if len(values) else None, note=note, clips=len(values))

    def notes(self, measured: Sequence[_Measured]) -> list[str]:
        """A note per metric on clips that have no value although they have not failed."""
        notes = []
        for one in measured:
            if isinstance(one.result, ClipValues) and (missing := int(np.isnan(one.result.values[self.rows]).sum())):
                notes.append(f"{missing} clips have no value of {one.metric.name} and are not in its mean")
        return notes


def _notes(entries: Sequence[PromptClip]) -> list[str]:
    """Notes on failures and duplicate files."""
    failed = [entry for entry in entries if entry.error is not None]
    notes = [f"{entry.id}: {entry.error}" for entry in failed]
    if failed:
        notes.append(f"{len(failed)} of {len(entries)} clips have no values and are in no mean")
    by_content: dict[str, list[str]] = {}
    for entry in entries:
        if entry.error is None and entry.file is not None:
            by_content.setdefault(content_digest(entry.file), []).append(entry.id)
    for same in by_content.values():
        if len(same) > 1:
            notes.append(f"{len(same)} clips are the same file and count each: {', '.join(same[:3])}")
    return notes


@dataclass(frozen=True)
class EvaluationSetup:
    """Held-out prompts and evaluators, the same for every stage of a run and every cell of a sweep.

    seed: of the first prompt; prompt i has seed + i. metrics: names of those measured besides the usual ones.
    all_sets: whether every built-in metric of sets that can be measured is a usual one, not the Frechet distance alone.
    """

    held_out: HeldOut
    evaluators: Evaluators
    reference: Reference
    seed: int
    metrics: tuple[str, ...] = ()
    all_sets: bool = False

    def evaluate(self, files: Sequence[Path], folder: Path, *, system: str, condition: str = "") -> Values:
        """The values of one clip per prompt, in the order of the prompts; written as `values.parquet` into `folder`.

        PromptError where the counts differ, AudioError where any clip cannot be measured: systems are compared over
        the same clips.
        """
        prompts, truths = self.held_out.prompts, self.held_out.truths
        if len(files) < 2 or len(files) != len(prompts):
            raise PromptError(f"{len(files)} clips for {len(prompts)} prompts; evaluation needs one each, at least two")
        entries = [
            PromptClip(f"{row:04d}", prompt, file, seed=self.seed + row)
            for row, (prompt, file) in enumerate(zip(prompts, files, strict=True))
        ]
        usual = [
            metric.name
            for metric in default_metrics(self.evaluators, [self.reference], truths)
            if metric.name == "frechet" or (self.all_sets if metric.scope == "set" else metric.name != "clip-frechet")
        ]
        evaluation = evaluate_clips(
            entries, self.evaluators, [self.reference], metrics_named([*usual, *self.metrics]), strict=False,
            system=system, condition=condition, truths=truths,
        )  # fmt: skip
        if evaluation.failed:
            raise AudioError(str(evaluation.failed[0].error))
        values = evaluation.values.with_files(lambda file: path_in(folder, file))
        values.write(folder / VALUES)
        return values

"""Which clips are compared with which: the same prompts in every system, and as many seeds of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from plaudit.errors import EvaluationError
from plaudit.evaluate.compare.systems import ComparedClip, System
from plaudit.statistics import Array

By = Literal["id", "prompt"]
Answers = dict[str, list[ComparedClip]]
"""A system's clips by prompt, those of one prompt in the order of their seeds."""


@dataclass(frozen=True)
class PromptClips:
    """A prompt and every system's clips of it, seed by seed; `key` is the id or the prompt it was paired by."""

    key: str
    prompt: str
    clips: Answers


@dataclass(frozen=True)
class Pairing:
    """Prompts that all systems answer, each with the same number of seeds.

    shared_seeds: every prompt has the same seeds, so that a seed may be lucky for all of them.
    left_out: prompts that not every system has, which --shared-prompts leaves out. notes: what a reader must know.
    """

    systems: list[str]
    metrics: list[str]
    prompts: list[PromptClips]
    seeds: int
    shared_seeds: bool
    left_out: int
    notes: list[str]

    def having(self, metric: str) -> list[PromptClips]:
        """The prompts whose clips all have a value of the metric."""
        return [p for p in self.prompts if all(metric in c.values for own in p.clips.values() for c in own)]

    def values(self, metric: str, system: str) -> Array:
        """The system's values [P, K] of the prompts that have the metric, by seed."""
        return np.array([[clip.values[metric] for clip in p.clips[system]] for p in self.having(metric)])


def pair(
    systems: Sequence[System], metrics: Sequence[str] | None = None, by: By | None = None, common: bool = False
) -> Pairing:
    """Pair the systems' clips by id where all systems have ids of prompts, else by prompt, or as `by` says.

    metrics: those to compare; all that every system has where not given. EvaluationError in one line where systems
    differ in prompts, seeds or values; with `common`, prompts that not all share are left out and counted.
    """
    chosen, notes = _chosen_metrics(systems, metrics)
    by = by or _default_key(systems)
    answers = {system.name: _answers(system, by) for system in systems}
    shared = _shared_keys(answers, by, common)
    left_out = len({key for own in answers.values() for key in own}) - len(shared)
    if common:
        whole = [key for key in shared if not _lacking(key, answers, chosen)]
        left_out += len(shared) - len(whole)
        shared = whole
    for key in shared:
        if gap := _lacking(key, answers, chosen):
            raise EvaluationError(f"{gap}; evaluate it again, or leave such prompts out with --shared-prompts")
        _check_text(key, answers)
    if len(shared) < 2:
        raise EvaluationError(f"the systems share {len(shared)} prompts, a comparison needs 2; generate more")
    seeds = _seeds(shared, answers)
    prompts = [_prompt(key, answers) for key in shared]
    same = len({tuple(c.seed for c in own[key]) for own in answers.values() for key in shared}) == 1
    pairing = Pairing([s.name for s in systems], chosen, prompts, seeds, same, left_out, notes)
    if left_out:
        whole_count = left_out + len(shared)
        notes.append(f"left out {left_out} of {whole_count} prompts, for which not every system has a clip with values")
    counts = {metric: len(pairing.having(metric)) for metric in chosen}
    sparse = [f"{metric!r} has a value for {n} prompts, it needs 2" for metric, n in counts.items() if n < 2]
    if sparse and (metrics or len(sparse) == len(chosen)):
        raise EvaluationError("; ".join(sparse))
    notes += [f"{reason}: not compared" for reason in sparse]
    for metric, count in counts.items():
        if 2 <= count < len(prompts):
            lacking = len(prompts) - count
            notes.append(f"{metric}: {lacking} prompts have no value in any system and are not in its comparison")
    return replace(pairing, metrics=[metric for metric in chosen if counts[metric] >= 2])


def _chosen_metrics(systems: Sequence[System], wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    shared = [name for name in systems[0].metrics if all(name in system.metrics for system in systems)]
    apart = [name for name in shared if len({s.models[name] for s in systems if name in s.models}) > 1]
    reasons = [f"{name} is of different models in the systems, so its values do not compare" for name in apart]
    if reasons and (len(apart) == len(shared) or any(name in apart for name in wanted or ())):
        raise EvaluationError(f"{'; '.join(reasons)}; evaluate their clips by the same with plaudit evaluate")
    shared = [name for name in shared if name not in apart]
    for name in wanted or ():
        lacking = [system.name for system in systems if name not in system.metrics]
        if lacking:
            raise EvaluationError(f"{lacking[0]} has no metric {name!r}; all have {', '.join(shared) or 'none'}")
    if not shared:
        told = "; ".join(f"{system.name} has {', '.join(system.metrics)}" for system in systems)
        raise EvaluationError(f"the systems have no metric in common: {told}")
    if wanted:
        return list(dict.fromkeys(wanted)), []
    every = {name for system in systems for name in system.metrics}
    alone = sorted(every - set(shared) - set(apart))
    notes = reasons + ([f"not every system has {', '.join(alone)}: not compared"] if alone else [])
    remarks = sorted({name for system in systems for name in system.remarks})
    return shared, notes + ([f"no numbers in {', '.join(remarks)}: not compared"] if remarks else [])


def _default_key(systems: Sequence[System]) -> By:
    """What the systems' clips are paired by where it is not said: ids, unless these are of clips and not of prompts.

    So are those of a generated folder that was evaluated without a list of prompts. They are known by a seed for every
    clip, and every prompt having several clips, or, with one each, by other ids for the same prompts.
    """
    if not all(any(clip.id for clip in system.clips) for system in systems):
        return "prompt"
    counts = {_clips_by_prompt(system) for system in systems}
    if len(counts) > 1 or None in counts:
        return "id"
    ids = {frozenset(clip.id for clip in system.clips) for system in systems}
    prompts = {frozenset(clip.prompt for clip in system.clips) for system in systems}
    return "prompt" if counts != {1} or (len(ids) > 1 and len(prompts) == 1) else "id"


def _clips_by_prompt(system: System) -> int | None:
    """How many clips each prompt has, with an id and a seed each; None where that differs, or something is missing."""
    clips: dict[str, list[ComparedClip]] = {}
    for clip in system.clips:
        clips.setdefault(clip.prompt, []).append(clip)
    counts = {len(own) for own in clips.values()}
    told_apart = all(
        len({clip.id for clip in own if clip.id}) == len({clip.seed for clip in own if clip.seed}) == len(own)
        for own in clips.values()
    )
    return counts.pop() if told_apart and len(counts) == 1 and "" not in clips else None


def _answers(system: System, by: By) -> Answers:
    """The system's clips by key, sorted by seed; EvaluationError where one stands there twice."""
    found: Answers = {}
    for clip in system.clips:
        key = clip.id if by == "id" else clip.prompt
        if not key:
            raise EvaluationError(f"{system.source} line {clip.line}: no {by} to pair the clip by")
        found.setdefault(key, []).append(clip)
    for key, clips in found.items():
        seeds = [clip.seed for clip in clips]
        for place, clip in enumerate(clips):
            if clip.seed in seeds[:place]:
                again = f"with seed {clip.seed} " if clip.seed else ""
                hint = "remove one" if clip.seed else "remove one, or tell several clips of a prompt by a column 'seed'"
                raise EvaluationError(
                    f"{system.source} line {clip.line}: {by} {_brief(key)} {again}stands there twice; {hint}"
                )
        clips.sort(key=lambda clip: (len(clip.seed), clip.seed))
    return found


def _shared_keys(answers: dict[str, Answers], by: By, common: bool) -> list[str]:
    """What all systems answer, in the order of the first."""
    first, *others = answers
    for other in others:
        for has, lacks in ((first, other), (other, first)):
            only = [key for key in answers[has] if key not in answers[lacks]]
            if only and not common:
                count = f"{len(only)} prompts" if len(only) > 1 else "a prompt"
                raise EvaluationError(
                    f"{has} has {count} that {lacks} lacks ({by} {_brief(only[0])}); make them, or compare what both "
                    "have with --shared-prompts"
                )
    return [key for key in answers[first] if all(key in answers[other] for other in others)]


def _lacking(key: str, answers: dict[str, Answers], metrics: Sequence[str]) -> str:
    """What clips of a prompt lack that others of the same prompt have, or ""."""
    clips = [(name, clip) for name, own in answers.items() for clip in own[key]]
    for name, clip in clips:
        if clip.error:
            return f"{name} has no values for {_brief(key)} ({clip.error})"
    for metric in metrics:
        lacking = [name for name, clip in clips if metric not in clip.values]
        if lacking and len(lacking) < len(clips):
            return f"{lacking[0]} has no {metric} for {_brief(key)}"
    return ""


def _check_text(key: str, answers: dict[str, Answers]) -> None:
    texts = {clip.prompt: name for name, own in answers.items() for clip in own[key] if clip.prompt}
    if len(texts) > 1:
        (one, first), (other, second) = list(texts.items())[:2]
        raise EvaluationError(
            f"{_brief(key)} is the prompt {_brief(one)} in {first} and {_brief(other)} in {second}; these are "
            "different prompts: give them different ids, or pair by --by prompt"
        )


def _seeds(keys: Sequence[str], answers: dict[str, Answers]) -> int:
    """How many seeds every prompt has in every system."""
    counts: dict[int, tuple[str, str]] = {}
    for name, own in answers.items():
        for key in keys:
            counts.setdefault(len(own[key]), (name, key))
    if len(counts) > 1:
        (one, (first, key)), (other, (second, another)) = list(counts.items())[:2]
        raise EvaluationError(
            f"{first} has {one} clips for {_brief(key)}, {second} has {other} for {_brief(another)}; a comparison "
            "needs as many seeds of every prompt in every system"
        )
    return next(iter(counts))


def _prompt(key: str, answers: dict[str, Answers]) -> PromptClips:
    clips = {name: own[key] for name, own in answers.items()}
    told = next((clip.prompt for own in clips.values() for clip in own if clip.prompt), key)
    return PromptClips(key, told, clips)


def _brief(text: str) -> str:
    """A prompt short enough for a line of an error."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

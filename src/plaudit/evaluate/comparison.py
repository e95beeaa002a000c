"""The comparison of systems on the same prompts: pairs of clips, differences of every metric, tests, and series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy import stats

from plaudit.errors import EvaluationError, listed
from plaudit.evaluate.metrics import lower_is_better
from plaudit.evaluate.overoptimization import Divergence, find_divergence, reward_among
from plaudit.evaluate.systems import ComparedClip, System
from plaudit.evaluate.values import Values
from plaudit.statistics import (
    LEVEL,
    RESAMPLES,
    Array,
    EffectSize,
    Equivalence,
    Interval,
    bca_mean,
    benjamini_hochberg,
    bootstrap_mean,
    centred_interval,
    detectable_effect,
    effect_size,
    equivalence_test,
    holm,
    mixed_difference,
    paired_difference,
    prompts_needed,
    without_spread,
)

COMPARISON_SEED = 0
"""Of every bootstrap of differences: the same values give the same numbers."""

ALPHA = 0.05
MARGIN = 0.2
"""The margin of equivalence where none is stated: this many standard deviations of the metric from prompt to prompt,
the mean of both systems' variances (ours; a fifth is what Cohen calls a small effect)."""


@dataclass(frozen=True)
class Difference:
    """One metric of two systems on the same prompts, `seeds` clips of each: second minus first.

    difference: with its BCa interval, for several seeds that of the mixed model, for a distance of sets the centred
    one of paired bootstrap replicates. Differences of sets, and such as are the same for every prompt, have no tests.
    t_interval: Student's. p: of the paired t-test, or of the mixed model; p_holm and p_bh are that one corrected over
    the whole table. p_wilcoxon, p_permutation: of the prompts' means over seeds. effect: in standard deviations of
    these differences. equivalence: with p_holm over the table's tests of equivalence. prompts_needed: for a difference
    as large as this one, None where no number is enough. detectable: the least difference that these prompts find, in
    the metric's units. Both are for a power of 0.8, a paired t-test at 0.05 and as many seeds.
    """

    metric: str
    first: str
    second: str
    prompts: int
    seeds: int
    mean_first: float
    mean_second: float
    difference: Interval
    method: str
    t_interval: Interval | None = None
    p: float | None = None
    p_wilcoxon: float | None = None
    p_permutation: float | None = None
    effect: EffectSize | None = None
    equivalence: Equivalence | None = None
    prompts_needed: int | None = None
    detectable: float | None = None
    p_holm: float | None = None
    p_bh: float | None = None
    equivalence_p_holm: float | None = None

    @property
    def established(self) -> bool:
        """Whether the interval excludes zero and, where there is a test, the corrected p-value is below 0.05."""
        return self.difference.excludes_zero and (self.p_holm is None or self.p_holm < ALPHA)

    @property
    def equivalent(self) -> bool:
        """Whether the difference is smaller than the margin, corrected over the table."""
        return self.equivalence_p_holm is not None and self.equivalence_p_holm < ALPHA

    @property
    def direction(self) -> str:
        """ "better" or "worse" where the second system is significantly so, else ""."""
        if not self.established:
            return ""
        return "better" if (self.difference.mean < 0) == lower_is_better(self.metric) else "worse"

    @property
    def verdict(self) -> str:
        """ "better", "worse", "equivalent" or "undecided" of the second system; "(negligible)" within the margin."""
        if self.direction:
            return self.direction + (" (negligible)" if self.equivalent else "")
        return "equivalent" if self.equivalent else "undecided"


def difference_of(
    metric: str,
    before: Array,
    after: Array,
    *,
    names: tuple[str, str] = ("", ""),
    shared_seeds: bool = False,
    margin: float | None = None,
    seed: int = COMPARISON_SEED,
) -> Difference:
    """The difference of a metric's values before and after, [P, K] of the same P prompts with K seeds each; P > 1."""
    means = before.mean(axis=1), after.mean(axis=1)
    gaps = means[1] - means[0]
    plain = Difference(
        metric, *names, len(gaps), before.shape[1], float(before.mean()), float(after.mean()),
        bca_mean(gaps, seed), "paired t",
    )  # fmt: skip
    if without_spread(gaps):  # no test says anything about a constant
        p = None if abs(gaps[0]) > 1e-12 else 1.0
        return replace(plain, p=p, p_wilcoxon=p)
    paired, effect = paired_difference(means[1], means[0], seed), effect_size(means[1], means[0])
    difference, error, freedom, p, method = paired.difference, _error(gaps), len(gaps) - 1.0, paired.p_t, plain.method
    if before.shape[1] > 1:
        mixed = mixed_difference(after - before, shared_seeds)
        difference, error, freedom, p = mixed.difference, mixed.error, mixed.freedom, mixed.p
        method = "mixed model: prompt and seed" if shared_seeds else "mixed model: prompt"
    spread = float(np.sqrt((means[0].var(ddof=1) + means[1].var(ddof=1)) / 2))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return replace(
        plain,
        difference=difference,
        method=method,
        t_interval=Interval(difference.mean, difference.mean - reach, difference.mean + reach),
        p=p,
        p_wilcoxon=paired.p_wilcoxon,
        p_permutation=paired.p_permutation,
        effect=effect,
        equivalence=equivalence_test(difference.mean, error, freedom, margin or MARGIN * spread),
        prompts_needed=prompts_needed(effect.d),
        detectable=detectable_effect(len(gaps)) * float(gaps.std(ddof=1)),
    )


def _error(gaps: Array) -> float:
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def differences_of_values(first: Values, second: Values, metrics: Sequence[str] | None = None) -> list[Difference]:
    """The differences of two systems of one run or sweep, which have clips of the same prompts and seeds.

    metrics: of clips, all by default; each over the clips that both systems have it of. Of sets, those with paired
    replicates follow.
    """
    if first.prompts != second.prompts:
        raise EvaluationError("the clips are of different prompts, so they cannot be compared; evaluate them again")
    names = first.systems[0], second.systems[0]
    differences = []
    for metric in first.clip_metrics if metrics is None else metrics:
        before, after = first.clip(metric), second.clip(metric)
        if len(before) == len(after) > 0:
            both = ~(np.isnan(before) | np.isnan(after))
            if both.sum() > 1:
                differences.append(difference_of(metric, before[both][:, None], after[both][:, None], names=names))
    for one in first.sets:
        other = second.set(one.metric, one.embedding)
        if one.replicates is None or other is None or other.replicates is None or None in (one.value, other.value):
            continue
        if len(one.replicates) != len(other.replicates) or one.clips != other.clips:
            raise EvaluationError(f"{one.metric} is compared over the same prompts and as many resamples")
        interval = centred_interval(other.value - one.value, other.replicates - one.replicates)  # type: ignore[operator]
        differences.append(
            Difference(one.metric, *names, one.clips, 1, one.value, other.value, interval, "paired bootstrap")  # type: ignore[arg-type]
        )
    return differences


def corrected(groups: Sequence[Sequence[Difference]]) -> tuple[list[list[Difference]], int]:
    """The same differences with p-values corrected over all tests of the groups together, and how many tests."""
    rows = [row for group in groups for row in group]
    tests = [row.p for row in rows if row.p is not None]
    strict, discovery = iter(holm(tests)), iter(benjamini_hochberg(tests))
    equal = iter(holm([row.equivalence.p for row in rows if row.equivalence is not None]))
    finished = [
        [
            replace(
                row,
                p_holm=None if row.p is None else next(strict),
                p_bh=None if row.p is None else next(discovery),
                equivalence_p_holm=None if row.equivalence is None else next(equal),
            )
            for row in group
        ]
        for group in groups
    ]
    return finished, len(tests)


By = Literal["id", "prompt"]
ClipsByKey = dict[str, list[ComparedClip]]
"""A system's clips by the id or prompt that they are paired by, those of one prompt in the order of their seeds."""


@dataclass(frozen=True)
class PromptClips:
    """A prompt and every system's clips of it, seed by seed; `key` is the id or the prompt it was paired by."""

    key: str
    prompt: str
    clips: ClipsByKey


@dataclass(frozen=True)
class Pairing:
    """Prompts that all systems have clips of, each with the same number of seeds.

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
        return [p for p in self.prompts if all(metric in c.values for clips in p.clips.values() for c in clips)]

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
    clips = {system.name: _clips_by_key(system, by) for system in systems}
    shared = _shared_keys(clips, by, common)
    total = len({key for of_system in clips.values() for key in of_system})
    if common:
        shared = [key for key in shared if not _missing(key, clips, chosen)]
    for key in shared:
        if gap := _missing(key, clips, chosen):
            raise EvaluationError(f"{gap}; evaluate it again, or leave such prompts out with --shared-prompts")
        _check_text(key, clips)
    if len(shared) < 2:
        raise EvaluationError(f"the systems share {len(shared)} prompts, a comparison needs 2; generate more")
    seeds = _seeds(shared, clips)
    prompts = [_prompt(key, clips) for key in shared]
    same = len({tuple(c.seed for c in of_system[key]) for of_system in clips.values() for key in shared}) == 1
    left_out = total - len(shared)
    pairing = Pairing([s.name for s in systems], chosen, prompts, seeds, same, left_out, notes)
    if left_out:
        notes.append(f"left out {left_out} of {total} prompts, for which not every system has a clip with values")
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


def _chosen_metrics(systems: Sequence[System], names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    shared = [name for name in systems[0].metrics if all(name in system.metrics for system in systems)]
    apart = [name for name in shared if len({s.models[name] for s in systems if name in s.models}) > 1]
    reasons = [f"{name} is of different models in the systems, so its values do not compare" for name in apart]
    if reasons and (len(apart) == len(shared) or any(name in apart for name in names or ())):
        raise EvaluationError(f"{'; '.join(reasons)}; evaluate their clips by the same with plaudit evaluate")
    shared = [name for name in shared if name not in apart]
    for name in names or ():
        without = [system.name for system in systems if name not in system.metrics]
        if without:
            raise EvaluationError(f"{without[0]} has no metric {name!r}; all have {', '.join(shared) or 'none'}")
    if not shared:
        lists = "; ".join(f"{system.name} has {', '.join(system.metrics)}" for system in systems)
        raise EvaluationError(f"the systems have no metric in common: {lists}")
    if names:
        return list(dict.fromkeys(names)), []
    every = {name for system in systems for name in system.metrics}
    alone = sorted(every - set(shared) - set(apart))
    notes = reasons + ([f"not every system has {', '.join(alone)}: not compared"] if alone else [])
    remarks = sorted({name for system in systems for name in system.remarks})
    return shared, notes + ([f"no numbers in {', '.join(remarks)}: not compared"] if remarks else [])


def _default_key(systems: Sequence[System]) -> By:
    """What the systems' clips are paired by by default: ids, unless these are of clips and not of prompts, as in a
    generated folder that was evaluated without a list of prompts.

    Ids are of clips where every clip has a seed, and every prompt several clips or, with one each, systems have
    different ids for the same prompts.
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
    counts = {len(group) for group in clips.values()}
    distinct = all(
        len({clip.id for clip in group if clip.id}) == len({clip.seed for clip in group if clip.seed}) == len(group)
        for group in clips.values()
    )
    return counts.pop() if distinct and len(counts) == 1 and "" not in clips else None


def _clips_by_key(system: System, by: By) -> ClipsByKey:
    """The system's clips by key, sorted by seed; EvaluationError where it has one twice."""
    clips_of: ClipsByKey = {}
    for clip in system.clips:
        key = clip.id if by == "id" else clip.prompt
        if not key:
            raise EvaluationError(f"{system.source} line {clip.line}: no {by} to pair the clip by")
        clips_of.setdefault(key, []).append(clip)
    for key, clips in clips_of.items():
        seeds = [clip.seed for clip in clips]
        for place, clip in enumerate(clips):
            if clip.seed in seeds[:place]:
                again = f"with seed {clip.seed} " if clip.seed else ""
                hint = "remove one" if clip.seed else "remove one, or tell several clips of a prompt by a column 'seed'"
                raise EvaluationError(
                    f"{system.source} line {clip.line}: {by} {_brief(key)} {again}stands there twice; {hint}"
                )
        clips.sort(key=lambda clip: (len(clip.seed), clip.seed))
    return clips_of


def _shared_keys(clips: dict[str, ClipsByKey], by: By, common: bool) -> list[str]:
    """The keys that all systems have, in the order of the first."""
    first, *others = clips
    for other in others:
        for has, lacks in ((first, other), (other, first)):
            only = [key for key in clips[has] if key not in clips[lacks]]
            if only and not common:
                count = f"{len(only)} prompts" if len(only) > 1 else "a prompt"
                raise EvaluationError(
                    f"{has} has {count} that {lacks} lacks ({by} {_brief(only[0])}); make them, or compare what both "
                    "have with --shared-prompts"
                )
    return [key for key in clips[first] if all(key in clips[other] for other in others)]


def _missing(key: str, clips: dict[str, ClipsByKey], metrics: Sequence[str]) -> str:
    """What clips of a prompt lack that others of the same prompt have, or ""."""
    of_prompt = [(name, clip) for name, of_system in clips.items() for clip in of_system[key]]
    for name, clip in of_prompt:
        if clip.error:
            return f"{name} has no values for {_brief(key)} ({clip.error})"
    for metric in metrics:
        without = [name for name, clip in of_prompt if metric not in clip.values]
        if without and len(without) < len(of_prompt):
            return f"{without[0]} has no {metric} for {_brief(key)}"
    return ""


def _check_text(key: str, clips: dict[str, ClipsByKey]) -> None:
    texts = {clip.prompt: name for name, of_system in clips.items() for clip in of_system[key] if clip.prompt}
    if len(texts) > 1:
        (one, first), (other, second) = list(texts.items())[:2]
        raise EvaluationError(
            f"{_brief(key)} is the prompt {_brief(one)} in {first} and {_brief(other)} in {second}; these are "
            "different prompts: give them different ids, or pair by --by prompt"
        )


def _seeds(keys: Sequence[str], clips: dict[str, ClipsByKey]) -> int:
    """The number of seeds per prompt, the same in every system."""
    counts: dict[int, tuple[str, str]] = {}
    for name, of_system in clips.items():
        for key in keys:
            counts.setdefault(len(of_system[key]), (name, key))
    if len(counts) > 1:
        (one, (first, key)), (other, (second, another)) = list(counts.items())[:2]
        raise EvaluationError(
            f"{first} has {one} clips for {_brief(key)}, {second} has {other} for {_brief(another)}; a comparison "
            "needs as many seeds of every prompt in every system"
        )
    return next(iter(counts))


def _prompt(key: str, clips: dict[str, ClipsByKey]) -> PromptClips:
    of_prompt = {name: of_system[key] for name, of_system in clips.items()}
    prompt = next((clip.prompt for group in of_prompt.values() for clip in group if clip.prompt), key)
    return PromptClips(key, prompt, of_prompt)


def _brief(text: str) -> str:
    """A prompt short enough for a line of an error."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


@dataclass(frozen=True)
class ComparisonTable:
    """All comparisons of a pairing, metric by metric, pair by pair.

    untested: a sentence for each metric of two systems whose differences leave nothing to test.
    """

    pairing: Pairing
    rows: list[Difference]
    margins: dict[str, float] = field(default_factory=dict)
    untested: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """The metrics of the rows."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def of_pair(self, first: str, second: str) -> list[Difference]:
        """The rows of one pair of systems."""
        return [row for row in self.rows if (row.first, row.second) == (first, second)]

    def to_json(self) -> dict[str, Any]:
        """Every number, and the settings."""
        pairing = self.pairing
        return {
            "systems": pairing.systems,
            "prompts": len(pairing.prompts),
            "seeds": pairing.seeds,
            "shared_seeds": pairing.shared_seeds,
            "left_out": pairing.left_out,
            "notes": pairing.notes,
            "untested": self.untested,
            "settings": {"level": LEVEL, "resamples": RESAMPLES, "stated_margins": self.margins, "margin": MARGIN},
            "comparisons": [{**asdict(row), "verdict": row.verdict} for row in self.rows],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """The same as flat rows for CSV."""
        return [_flat({**asdict(row), "verdict": row.verdict}) for row in self.rows]


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as columns: {"difference": {"low": 1}} becomes {"difference_low": 1}."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= _flat(value, f"{prefix}{name}_") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def compare(pairing: Pairing, margins: Mapping[str, float] | None = None, seed: int = 0) -> ComparisonTable:
    """Compare every two systems in every metric; EvaluationError where no metric leaves anything to test.

    margins: of equivalence, by metric, in its units; MARGIN standard deviations for the others.
    """
    margins = dict(margins or {})
    for name, margin in margins.items():
        if name not in pairing.metrics:
            raise EvaluationError(f"--margin {name}: no such metric; compared are {', '.join(pairing.metrics)}")
        if not (np.isfinite(margin) and margin > 0):
            raise EvaluationError(f"--margin {name}={margin:g}: a margin is a number above zero")
    rows, untested = list[Difference](), list[str]()
    for metric in pairing.metrics:
        for first, second in combinations(pairing.systems, 2):
            row = difference_of(
                metric,
                pairing.values(metric, first),
                pairing.values(metric, second),
                names=(first, second),
                shared_seeds=pairing.shared_seeds,
                margin=margins.get(metric),
                seed=seed,
            )
            if row.effect is None:
                gap = row.difference.mean
                same = "are the same" if abs(gap) <= 1e-12 else f"differ by {gap:g}"
                untested.append(f"{metric!r} of {first} and {second} {same} for every prompt")
            else:
                rows.append(row)
    if not rows:
        raise EvaluationError(f"there is nothing to test: {listed(untested, 5)}; is one a copy of the other?")
    return ComparisonTable(pairing, corrected([rows])[0][0], margins, untested)


@dataclass(frozen=True)
class TrackedMetric:
    """Means by system of reward and another metric over the prompts that have both, and where the two diverge."""

    metric: str
    reward: list[Interval]
    other: list[Interval]
    divergence: Divergence | None


def track_series(pairing: Pairing) -> list[TrackedMetric]:
    """Every metric against the reward along the systems; EvaluationError where there is no reward or no series."""
    reward = reward_among(pairing.metrics)
    others = [metric for metric in pairing.metrics if metric != reward]
    if reward is None or not others:
        raise EvaluationError(f"a series needs a metric named reward and another, not {', '.join(pairing.metrics)}")
    if len(pairing.systems) < 3:
        raise EvaluationError(f"a series needs at least three systems, not {', '.join(pairing.systems)}")
    return [_tracked(pairing, reward, metric) for metric in others]


def _tracked(pairing: Pairing, reward: str, metric: str) -> TrackedMetric:
    rewarded = {p.key for p in pairing.having(reward)}
    rows = [p for p in pairing.having(metric) if p.key in rewarded]
    if len(rows) < 2:
        raise EvaluationError(f"{len(rows)} prompts have both {reward} and {metric}, a series needs 2")

    def means(name: str) -> np.ndarray:
        """[S, P], over seeds."""
        return np.array([[np.mean([c.values[name] for c in p.clips[s]]) for p in rows] for s in pairing.systems])

    rewards, others = means(reward), means(metric)
    return TrackedMetric(
        metric=metric,
        reward=[bootstrap_mean(values, 0) for values in rewards],
        other=[bootstrap_mean(values, 0) for values in others],
        divergence=find_divergence(metric, rewards, others),
    )

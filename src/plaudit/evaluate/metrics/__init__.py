"""Metrics: each is one object in a file of its own, with its name, heading, direction, requirements and interval.

Another metric is a `Metric` in an installed package (entry point group `plaudit.metrics`) or in a Python file, named as
`path/to/file.py:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.embeddings import CachedClip, Reference
from plaudit.evaluate.values import SetValue
from plaudit.registry import Registry
from plaudit.statistics import Array, Interval, bootstrap_mean

if TYPE_CHECKING:
    from plaudit.evaluate.evaluation import Evaluators
    from plaudit.reward.scoring import ScoreCache

METRIC_SEED = 0
"""One seed for every evaluation: equal clips have equal intervals."""

Direction = Literal["higher", "lower"]
Need = Literal["detector", "answerer", "truth", "reference", "reference_embeddings"]
"""detector: of concepts. answerer: an audio language model. truth: of the prompts, and the true utility. reference:
music to compare with, of which reference_embeddings keeps the embeddings of single clips."""

MISSING: dict[Need, str] = {
    "detector": "{name} needs a concept detector",
    "answerer": "{name} asks an audio language model; name one with --audio-language-model",
    "truth": "{name} needs prompts whose truth is known, as those of the synthetic corpus",
    "reference": "{name} compares with reference music; give --reference",
    "reference_embeddings": "{name} needs the reference's embeddings, and {source} holds their mean and covariance "
    "alone; export it --with-embeddings",
}


@dataclass(frozen=True)
class ClipValues:
    """A metric of n clips: values [n], NaN where a clip has none, with a note on each clip.

    summary: a note on the clips of a selection of rows, for that of the mean.
    """

    values: Array
    notes: Sequence[str] = ()
    summary: Callable[[Sequence[int]], str] = lambda rows: ""


@dataclass(frozen=True)
class MetricInputs:
    """n clips, with the evaluators and references for metrics.

    truths: what each prompt describes, where that is known. embeddings: [n, E], for metrics that are `per_embedding`;
    compared_with: the reference by the same encoder. failures: why clips cannot be measured, by their place.
    """

    clips: Sequence[CachedClip]
    prompts: Sequence[str]
    evaluators: Evaluators
    truths: Sequence[Any] | None = None
    embeddings: Array = field(default_factory=lambda: np.empty((0, 0)))
    compared_with: Reference | None = None
    scores: ScoreCache | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The reference, for metrics that need one."""
        assert self.compared_with is not None
        return self.compared_with

    @property
    def reference_embeddings(self) -> Array:
        """The embeddings [M, E] of the reference, for metrics that need them."""
        assert self.reference.embeddings is not None
        return self.reference.embeddings

    def each(self, measure: Callable[[CachedClip, str], float | None]) -> Array:
        """`measure` of every clip and its prompt [n]. A clip for which it raises AudioError is one of `failures`."""
        values = np.full(len(self.clips), np.nan)
        for place, (clip, prompt) in enumerate(zip(self.clips, self.prompts, strict=True)):
            try:
                value = measure(clip, prompt)
            except AudioError as error:
                self.failures[place] = str(error)
            else:
                values[place] = np.nan if value is None else value
            self.progress(place + 1, len(self.clips))
        return values


@dataclass(frozen=True)
class Metric:
    """A metric of clips, or of a set of clips.

    heading: at the head of a column or a chart. unit: behind its values; "" for plain numbers.
    compute: of inputs, the values of clips [n], or with scope "set" the value of all n; its EvaluationError says why
    there is none.
    caution: a line under every table that has it.
    interval: of the mean over clips, from their values and a seed.
    per_embedding: it is measured once for each encoder.
    """

    name: str
    heading: str
    compute: Callable[[MetricInputs], Array | ClipValues | SetValue]
    better: Direction = "higher"
    unit: str = ""
    scope: Literal["clip", "set"] = "clip"
    needs: frozenset[Need] = frozenset()
    per_embedding: bool = False
    interval: Callable[[Array, int], Interval] = bootstrap_mean
    caution: str = ""

    @property
    def in_sentence(self) -> str:
        """The heading within a sentence: "concept coverage", "Fréchet distance"."""
        first = self.heading.split()[0]
        keeps = first != first.capitalize() or first in CAPITALIZED
        return self.heading if keeps else self.heading[:1].lower() + self.heading[1:]

    def missing(self, evaluators: Evaluators, reference: Reference | None, truths: Sequence[Any] | None) -> str:
        """Why it cannot be measured with these, in one line; "" where it can."""
        lacking: dict[Need, bool] = {
            "detector": evaluators.detector is None,
            "answerer": evaluators.answerer is None or evaluators.vocabulary is None,
            "truth": truths is None or evaluators.utility is None,
            "reference": reference is None,
            "reference_embeddings": reference is not None and reference.embeddings is None,
        }
        need = next((need for need in MISSING if need in self.needs and lacking[need]), None)
        return "" if need is None else MISSING[need].format(name=self.name, source=reference and reference.source)


COVERAGES_DIFFER = (
    "Concept coverage and challenge concept coverage do not compare: the first is what this package's detectors find "
    "of a prompt's concepts, the second an audio language model's answers on its genre, instrument and mood."
)
"""The caution of both metrics."""

CAPITALIZED = ("Fréchet", "Vendi")
"""First words of headings that keep their capital within a sentence."""

METRICS: Registry[Metric] = Registry(
    "metric",
    "plaudit.metrics",
    {
        "reward": "plaudit.evaluate.metrics.reward:METRIC",
        "clap": "plaudit.evaluate.metrics.clap:METRIC",
        "concepts": "plaudit.evaluate.metrics.concepts:METRIC",
        "challenge-concepts": "plaudit.evaluate.metrics.challenge_concepts:METRIC",
        "utility": "plaudit.evaluate.metrics.utility:METRIC",
        "clip-frechet": "plaudit.evaluate.metrics.clip_frechet:METRIC",
        "frechet": "plaudit.evaluate.metrics.frechet:METRIC",
        "frechet-infinity": "plaudit.evaluate.metrics.frechet_infinity:METRIC",
        "kernel": "plaudit.evaluate.metrics.kernel:METRIC",
        "mauve": "plaudit.evaluate.metrics.mauve:METRIC",
        "precision": "plaudit.evaluate.metrics.precision:METRIC",
        "recall": "plaudit.evaluate.metrics.recall:METRIC",
        "density": "plaudit.evaluate.metrics.density:METRIC",
        "coverage": "plaudit.evaluate.metrics.coverage:METRIC",
        "vendi": "plaudit.evaluate.metrics.vendi:METRIC",
    },
    requires=("name", "heading", "compute"),
    error=EvaluationError,
)
"""Every metric by name; the built-in ones in the order of tables. Their modules are spelled out, so that digests of a
step's code follow them."""

NAMES = tuple(METRICS.builtin)


LOADED: dict[str, Metric] = {}
"""Metrics of files and of other packages that this process has loaded, by their own names."""


def metrics_named(names: Sequence[str], base: Path | None = None) -> list[Metric]:
    """The metrics of these names, each once and in the order of tables; relative paths are looked for in `base` first.

    Those of files are kept in LOADED, where reports and comparisons look them up by their own names.
    """
    metrics: dict[str, Metric] = {}
    for name in names:
        metric = METRICS.load(name, base)
        if name not in NAMES:
            if metric.name in NAMES:
                raise EvaluationError(f"metric {name!r} is called {metric.name!r}, as a built-in one is; rename it")
            LOADED[metric.name] = metric
        metrics[metric.name] = metric
    order = [*NAMES, *LOADED]
    return sorted(metrics.values(), key=lambda metric: order.index(metric.name))


def describe(metrics: Sequence[Metric]) -> dict[str, dict[str, str]]:
    """Descriptions of metrics that are not built in, by name."""
    return {m.name: {"heading": m.heading, "better": m.better, "unit": m.unit} for m in metrics if m.name not in NAMES}


def metric_called(name: str, described: Mapping[str, Mapping[str, str]] | None = None) -> Metric:
    """The metric of a column, which may be one of another program's table.

    `frechet-synthetic` goes by the metric before the encoder. One that is neither known nor `described` has its name
    as heading, and is better where it is lower if its name is that of a distance.
    """
    matches = [one for one in (*NAMES, *LOADED) if name == one or name.startswith(f"{one}-")]
    if matches:
        longest = max(matches, key=len)
        return LOADED[longest] if longest in LOADED else METRICS.load(longest)
    about = dict((described or {}).get(name, {}))
    distance = any(word in name.lower() for word in DISTANCE_WORDS)
    better: Any = about.get("better", "lower" if distance else "higher")
    return Metric(name, about.get("heading", name), _not_here, better, about.get("unit", ""))


def cautions(names: Sequence[str]) -> list[str]:
    """The lines that belong under a table of these metrics."""
    return list(dict.fromkeys(filter(None, (metric_called(name).caution for name in names))))


def lower_is_better(metric: str) -> bool:
    """Whether a metric, by its name or that of a column, is better where it is lower."""
    return metric_called(metric).better == "lower"


DISTANCE_WORDS = ("frechet", "fad", "distance", "kernel", "kad", "mauve")
"""Words in the names of other programs' metrics that are better where they are lower (ours)."""


def _not_here(inputs: MetricInputs) -> Array:
    raise EvaluationError("only values of this metric are here; name the file that defines it")

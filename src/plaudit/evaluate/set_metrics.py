"""The metrics of a set of embeddings by name: what each needs, which way is better, and its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from plaudit.errors import EvaluationError
from plaudit.evaluate.distances import (
    Array,
    FrechetOfRows,
    Gaussian,
    closeness,
    embeddings_of,
    frechet_infinity_interval,
    kernel_distance_interval,
    mauve_interval,
    straight,
    vendi_interval,
)
from plaudit.evaluate.embeddings import Reference
from plaudit.evaluate.results_table import Better, MetricResult
from plaudit.statistics import Interval, bootstrap_mean, bootstrap_statistic, centred_interval

BOOTSTRAP_SEED = 0
"""One seed for every evaluation: equal clips have equal intervals."""

Measure = Callable[[Array, Reference], tuple[Interval | float, str]]


@dataclass(frozen=True)
class SetMetric:
    """needs: what of a reference it uses. measure(embeddings [N, E], reference): its value with its interval, or alone
    where an interval makes no sense, and a note on how to read it."""

    name: str
    needs: Literal["nothing", "gaussian", "embeddings"]
    better: Better
    measure: Measure


def measure_set(metric: SetMetric, embeddings: Array, reference: Reference | None, embedding: str) -> MetricResult:
    """A metric of embeddings [N, E]; EvaluationError where the clips or the reference are not enough for it."""
    if metric.needs != "nothing":
        if reference is None:
            raise EvaluationError(f"{metric.name} compares with reference music; give --reference")
        if metric.needs == "embeddings" and reference.embeddings is None:
            raise EvaluationError(
                f"{metric.name} needs the reference's embeddings, and {reference.source} holds their mean and "
                "covariance alone; export it --with-embeddings"
            )
    found, note = metric.measure(embeddings, reference)  # type: ignore[arg-type]
    value, low, high = (found, None, None) if isinstance(found, float) else (found.mean, found.low, found.high)
    return MetricResult(metric.name, value, low, high, len(embeddings), metric.better, embedding, note)


def frechet_interval(embeddings: Array, reference: Gaussian, seed: int, resamples: int = 300) -> Interval:
    """The Frechet distance with its 95 % bootstrap interval over clips, centred and not below zero."""
    x = embeddings_of(embeddings)
    distance = FrechetOfRows(x, reference)
    found = bootstrap_statistic(distance, len(x), seed, resamples, centred_interval)
    return Interval(found.mean, max(0.0, found.low), found.high)


def _frechet(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return frechet_interval(x, reference.gaussian, BOOTSTRAP_SEED), ""


def _infinity(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    interval = frechet_infinity_interval(x, reference.gaussian, BOOTSTRAP_SEED)
    bent = "too few clips for this width: the line is a curve, and its end says nothing"
    return interval, "" if straight(len(x), reference.gaussian) else bent


def _kernel(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return kernel_distance_interval(x, _embeddings(reference), BOOTSTRAP_SEED), ""


def _mauve(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return mauve_interval(x, _embeddings(reference), BOOTSTRAP_SEED), ""


def _precision(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return bootstrap_mean(closeness(x, reference.balls).inside, BOOTSTRAP_SEED), ""


def _recall(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    share = float(closeness(x, reference.balls).reached.mean())
    return share, "no interval: repeats in a resample shrink its balls"


def _density(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return bootstrap_mean(closeness(x, reference.balls).density, BOOTSTRAP_SEED), ""


def _coverage(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    share = float(closeness(x, reference.balls).covered.mean())
    return share, "no interval: a resample holds fewer different clips"


def _vendi(x: Array, reference: Reference) -> tuple[Interval | float, str]:
    return vendi_interval(embeddings_of(x), BOOTSTRAP_SEED), ""


def _embeddings(reference: Reference) -> Array:
    assert reference.embeddings is not None
    return reference.embeddings


SET_METRICS = {
    metric.name: metric
    for metric in (
        SetMetric("frechet", "gaussian", "lower", _frechet),
        SetMetric("frechet-infinity", "gaussian", "lower", _infinity),
        SetMetric("kernel", "embeddings", "lower", _kernel),
        SetMetric("mauve", "embeddings", "lower", _mauve),
        SetMetric("precision", "embeddings", "higher", _precision),
        SetMetric("recall", "embeddings", "higher", _recall),
        SetMetric("density", "embeddings", "higher", _density),
        SetMetric("coverage", "embeddings", "higher", _coverage),
        SetMetric("vendi", "nothing", "higher", _vendi),
    )
}

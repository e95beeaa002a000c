"""The Fréchet distance extrapolated to infinitely many clips."""

from __future__ import annotations

from plaudit.evaluate.distances import frechet_infinity_interval, straight
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """With few clips for the width of embeddings the relation is not linear; a note says so."""
    target = inputs.reference.gaussian
    interval = frechet_infinity_interval(inputs.embeddings, target, METRIC_SEED)
    bent = "too few clips for this width: the line is a curve, and its end says nothing"
    return SetValue.of(interval, "" if straight(len(inputs.embeddings), target) else bent)


METRIC = Metric(
    "frechet-infinity",
    "FAD-infinity",
    compute,
    "lower",
    scope="set",
    needs=frozenset({"reference"}),
    per_embedding=True,
)

"""Coverage: the fraction of the balls of the reference that hold a clip."""

from __future__ import annotations

from plaudit.evaluate.distances import closeness
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """Without an interval: a resample of n clips holds about 0.63 n different ones."""
    covered = closeness(inputs.embeddings, inputs.reference.balls).covered
    return SetValue(float(covered.mean()), note="no interval: a resample holds fewer different clips")


METRIC = Metric(
    "coverage",
    "Coverage",
    compute,
    "higher",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

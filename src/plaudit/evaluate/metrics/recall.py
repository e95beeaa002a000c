"""Recall: the fraction of the reference that lies within the set of clips."""

from __future__ import annotations

from plaudit.evaluate.distances import closeness
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """Without an interval: a repeated clip is its own nearest neighbour."""
    reached = closeness(inputs.embeddings, inputs.reference.balls).reached
    return SetValue(float(reached.mean()), note="no interval: repeats in a resample shrink its balls")


METRIC = Metric(
    "recall",
    "Recall",
    compute,
    "higher",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

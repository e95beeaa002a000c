"""Density: how densely the reference lies around the clips; about 1 for a set like it."""

from __future__ import annotations

from plaudit.evaluate.distances import closeness
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue
from plaudit.statistics import bootstrap_mean


def compute(inputs: MetricInputs) -> SetValue:
    """A mean over clips, and its interval that of a mean."""
    return SetValue.of(bootstrap_mean(closeness(inputs.embeddings, inputs.reference.balls).density, METRIC_SEED))


METRIC = Metric(
    "density",
    "Density",
    compute,
    "higher",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

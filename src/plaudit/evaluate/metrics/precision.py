"""Precision: the fraction of clips that lie within the reference."""

from __future__ import annotations

from plaudit.evaluate.distances import closeness
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue
from plaudit.statistics import bootstrap_mean


def compute(inputs: MetricInputs) -> SetValue:
    """A mean over clips, and its interval that of a mean."""
    return SetValue.of(bootstrap_mean(closeness(inputs.embeddings, inputs.reference.balls).inside, METRIC_SEED))


METRIC = Metric(
    "precision",
    "Precision",
    compute,
    "higher",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

"""The kernel distance (KAD) of a set of clips from the reference."""

from __future__ import annotations

from plaudit.evaluate.distances import kernel_distance_interval
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """An unbiased estimate, which may be below zero."""
    return SetValue.of(kernel_distance_interval(inputs.embeddings, inputs.reference_embeddings, METRIC_SEED))


METRIC = Metric(
    "kernel",
    "Kernel distance (KAD)",
    compute,
    "lower",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

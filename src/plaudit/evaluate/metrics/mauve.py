"""The MAUVE divergence of a set of clips from the reference."""

from __future__ import annotations

from plaudit.evaluate.distances import mauve_interval
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """-ln MAUVE: 0 for sets that fill the same clusters alike."""
    return SetValue.of(mauve_interval(inputs.embeddings, inputs.reference_embeddings, METRIC_SEED))


METRIC = Metric(
    "mauve",
    "MAUVE divergence",
    compute,
    "lower",
    scope="set",
    needs=frozenset({"reference", "reference_embeddings"}),
    per_embedding=True,
)

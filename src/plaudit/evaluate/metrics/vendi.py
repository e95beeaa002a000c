"""The Vendi score: the diversity of a set of clips, from 1 to their number."""

from __future__ import annotations

from plaudit.evaluate.distances import vendi_interval
from plaudit.evaluate.metrics import METRIC_SEED, Metric, MetricInputs
from plaudit.evaluate.values import SetValue


def compute(inputs: MetricInputs) -> SetValue:
    """It needs no reference."""
    return SetValue.of(vendi_interval(inputs.embeddings, METRIC_SEED))


METRIC = Metric("vendi", "Vendi score", compute, "higher", scope="set", needs=frozenset(), per_embedding=True)

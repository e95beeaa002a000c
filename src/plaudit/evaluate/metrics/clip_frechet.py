"""The Fréchet distance of each clip alone from the reference."""

from __future__ import annotations

from plaudit.evaluate.distances import frechet_per_clip
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.statistics import Array


def compute(inputs: MetricInputs) -> Array:
    """A clip is one embedding, so that this is its squared distance from the reference's mean, and a constant."""
    return frechet_per_clip([row[None] for row in inputs.embeddings], inputs.reference.gaussian)


METRIC = Metric(
    "clip-frechet", "Fréchet distance of a clip", compute, "lower", needs=frozenset({"reference"}), per_embedding=True
)

"""The Fréchet distance (FAD) of a set of clips from the reference."""

from __future__ import annotations

from plaudit.evaluate.distances import FrechetOfRows, frechet_between, gaussian
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.evaluate.values import SetValue
from plaudit.statistics import bootstrap_replicates, centred_interval

SEED, RESAMPLES = 20, 300


def compute(inputs: MetricInputs) -> SetValue:
    """The interval is centred, and does not go below zero as a distance doesn't."""
    target, count = inputs.reference.gaussian, len(inputs.embeddings)
    distance = frechet_between(gaussian(inputs.embeddings), target)
    replicates = bootstrap_replicates(FrechetOfRows(inputs.embeddings, target), count, SEED, RESAMPLES)
    interval = centred_interval(distance, replicates)
    return SetValue(distance, max(0.0, interval.low), interval.high, replicates)


METRIC = Metric(
    "frechet", "Fréchet distance", compute, "lower", scope="set", needs=frozenset({"reference"}), per_embedding=True
)

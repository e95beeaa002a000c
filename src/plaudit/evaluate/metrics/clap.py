"""The CLAP score: the cosine of a clip's and its prompt's embeddings."""

from __future__ import annotations

from plaudit.evaluate.embeddings import embed_clips, embed_prompts
from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.statistics import Array


def compute(inputs: MetricInputs) -> Array:
    """Both embeddings have unit length."""
    clap = inputs.evaluators.clap
    audio = embed_clips(inputs.clips, clap, inputs.failures, inputs.progress)
    return (audio * embed_prompts(clap, inputs.prompts)).sum(axis=1)


METRIC = Metric("clap", "CLAP score", compute, unit="cosine")

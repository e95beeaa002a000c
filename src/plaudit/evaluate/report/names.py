"""What metrics are called for people."""

from __future__ import annotations

from plaudit.evaluate.results_table import Better
from plaudit.evaluate.set_metrics import SET_METRICS

HEADINGS = {
    "reward": "Reward",
    "clap": "CLAP score",
    "concepts": "Concept coverage",
    "utility": "True utility",
    "frechet": "Fréchet distance",
    "frechet-infinity": "FAD-infinity",
    "kernel": "Kernel distance (KAD)",
    "mauve": "MAUVE divergence",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "vendi": "Vendi score",
}
"""At the head of a column or a chart."""

IN_SENTENCES = {
    "reward": "mean reward",
    "clap": "CLAP score",
    "concepts": "concept coverage",
    "frechet": "Fréchet distance",
    "utility": "true utility",
}


def better(metric: str) -> Better:
    """Which way a metric is better."""
    return SET_METRICS[metric].better if metric in SET_METRICS else "higher"

"""Which way is better: distances fall as clips get better, everything else rises."""

from __future__ import annotations

DISTANCES = ("frechet", "fad", "distance", "kernel", "kad", "mauve")
"""What the names of metrics hold that are better where they are lower (ours)."""


def lower_is_better(metric: str) -> bool:
    """Whether a metric of this name is a distance."""
    return any(word in metric.lower() for word in DISTANCES)

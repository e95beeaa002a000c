"""Metrics, statistics and the report."""

from plaudit.evaluate.distances.frechet import frechet_distance

__all__ = ["frechet_distance"]

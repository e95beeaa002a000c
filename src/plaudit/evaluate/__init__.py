"""Metrics, statistics and the report."""

from plaudit.evaluate.distances import frechet_distance

__all__ = ["frechet_distance"]

"""Metrics, statistics and the report."""

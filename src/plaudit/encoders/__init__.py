"""Frozen listeners and readers."""

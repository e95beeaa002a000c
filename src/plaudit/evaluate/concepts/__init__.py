"""Concept coverage: the concepts that a prompt names, and which of them a clip has."""

"""Prompts -> clips."""

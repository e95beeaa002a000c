"""Frozen encoders of audio and text."""

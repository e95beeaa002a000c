"""Waveform <-> latents."""

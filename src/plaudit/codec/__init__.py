"""Codecs between waveforms and latents."""

"""The synthetic world: music whose truth is known, simulated listeners, and small frozen models."""

"""Sweeps: one decision varied, everything else the same, every cell with its interval."""

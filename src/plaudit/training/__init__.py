"""The training loop and its data, settings and adapters."""

"""The training stages, on one loop."""

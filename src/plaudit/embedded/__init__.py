"""Training of the embedded world's shipped weights."""

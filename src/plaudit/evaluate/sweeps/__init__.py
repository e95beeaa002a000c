"""What sweeps found: numbers with intervals, figures and tables."""

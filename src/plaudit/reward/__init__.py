"""TuneJury: the learned model of human preference."""

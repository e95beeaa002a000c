"""Listening tests: their design, sessions of listeners, statistics, results and exports."""

"""Expert iteration: which of the model's own clips it is trained on next."""

from __future__ import annotations

import numpy as np


def keep_best(rewards: np.ndarray, clap_scores: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` candidates with the highest equal-weight sum of z-scores, best first.

    rewards, clap_scores: [n]. A quantity that doesn't vary has no say. Ties keep the earlier candidate.
    """
    total = standard_scores(rewards) + standard_scores(clap_scores)
    return np.argsort(-total, kind="stable")[:keep]


def standard_scores(values: np.ndarray) -> np.ndarray:
    """(values - mean) / standard deviation; zeros where they are all equal, but for rounding."""
    away = values - values.mean()
    spread = away.std()
    return away / spread if spread > 1e-12 * np.abs(values).max() else np.zeros_like(away)

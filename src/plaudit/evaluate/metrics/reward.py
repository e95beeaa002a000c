"""The reward: predicted preference for each clip."""

from __future__ import annotations

import numpy as np

from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.reward.scoring import Clip, score_clips
from plaudit.statistics import Array


def compute(inputs: MetricInputs) -> Array:
    """The reward of each file, from the cache where it is known."""
    clips = [Clip(clip.file, prompt) for clip, prompt in zip(inputs.clips, inputs.prompts, strict=True)]
    scored = score_clips(clips, inputs.evaluators.reward, inputs.scores, inputs.progress)
    inputs.failures.update({place: str(row.error) for place, row in enumerate(scored) if row.score is None})
    return np.array([np.nan if row.score is None else row.score for row in scored])


METRIC = Metric("reward", "Reward", compute)

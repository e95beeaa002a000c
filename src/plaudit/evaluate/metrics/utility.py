"""True utility: the simulated listeners' utility of a clip, given the truth that its prompt describes."""

from __future__ import annotations

import numpy as np
import torch

from plaudit.evaluate.metrics import Metric, MetricInputs
from plaudit.statistics import Array


def compute(inputs: MetricInputs) -> Array:
    """The listeners take all waves [T] and truths at once."""
    assert inputs.evaluators.utility is not None and inputs.truths is not None
    seconds = inputs.each(lambda clip, prompt: clip.recording.seconds)
    places = [place for place, value in enumerate(seconds) if not np.isnan(value)]
    waves = [inputs.clips[place].recording.wave for place in places]
    with torch.inference_mode():
        utility = inputs.evaluators.utility(waves, [inputs.truths[place] for place in places])
    values = np.full(len(inputs.clips), np.nan)
    values[places] = utility.float().cpu().numpy()
    return values


METRIC = Metric("utility", "True utility", compute, needs=frozenset({"truth"}))

"""Classifier-free guidance: how the velocities of differently conditioned passes are combined.

Nothing here knows a network: `branches` says which passes a step needs, `combine` takes their velocities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator
from torch import Tensor

from plaudit.settings import NotNegative, Settings, Share

Branch = Literal["conditional", "text", "negative"]
"""A pass with the text and the score; with the text alone; with the negative text alone."""


class Guidance(Settings):
    """How strongly text and score steer.

    mode "joint" (published): weight v(text, score) + (1 - weight) v(negative); at a weight of 1 or less only the
    conditional pass is run.
    mode "separate" (ours): v(negative) + text_weight (v(text) - v(negative))
    + reward_weight (v(text, score) - v(text)).
    schedule: "constant"; "linear", from the weights at the first step to no guidance at the last; "interval", on while
    `start` <= progress < `stop` and off outside. Progress runs from 0 at noise to 1 at music.
    Off means a weight of 1: the conditional pass alone.
    rescale: how far a guided velocity's standard deviation over a clip is brought back to that of the conditional pass,
    0 not at all, 1 wholly (Lin et al., arXiv 2305.08891).
    """

    weight: NotNegative = 4.0
    mode: Literal["joint", "separate"] = "joint"
    text_weight: NotNegative = 4.0
    reward_weight: NotNegative = 4.0
    schedule: Literal["constant", "linear", "interval"] = "constant"
    start: Share = 0.0
    stop: Share = 1.0
    rescale: Share = 0.0

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> Guidance:
        if self.start >= self.stop:
            raise ValueError(f"the guidance interval must start before it stops, not {self.start} to {self.stop}")
        return self

    def at(self, progress: float) -> Guidance:
        """The constant guidance in force at `progress` in [0, 1)."""
        if self.schedule == "constant":
            return self
        if self.schedule == "interval":
            share = float(self.start <= progress < self.stop)
        else:
            share = 1 - progress
        weights = ("weight", "text_weight", "reward_weight")
        changes = {name: 1 + share * (getattr(self, name) - 1) for name in weights}
        return self.model_copy(update={**changes, "schedule": "constant"})

    def switches(self, steps: int) -> set[int]:
        """The steps, of so many, at which an interval of guidance begins or ends."""
        if self.schedule != "interval":
            return set()
        on = [self.start <= step / steps < self.stop for step in range(steps)]
        return {step for step in range(1, steps) if on[step] != on[step - 1]}


def branches(guidance: Guidance, scored: bool) -> tuple[Branch, ...]:
    """The passes that a step under constant `guidance` needs; `scored` says whether a score is asked for."""
    if guidance.mode == "joint":
        return ("conditional",) if guidance.weight <= 1 else ("conditional", "negative")
    if not scored:
        # Without a score the text pass is the conditional one.
        return ("conditional",) if guidance.text_weight == 1 else ("conditional", "negative")
    if guidance.text_weight == guidance.reward_weight == 1:
        return ("conditional",)
    if guidance.text_weight == guidance.reward_weight:
        return ("conditional", "negative")
    return ("conditional", "text") if guidance.text_weight == 1 else ("conditional", "text", "negative")


def combine(guidance: Guidance, velocities: Mapping[Branch, Tensor]) -> Tensor:
    """The guided velocity from those of `branches`, all of one shape, of which the first axis is clips."""
    conditional = velocities["conditional"]
    if len(velocities) == 1:
        return conditional
    guided = _guided(guidance, velocities)
    if not guidance.rescale:
        return guided
    axes = tuple(range(1, guided.ndim))
    spread = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-12)
    return guided * (1 + guidance.rescale * (spread - 1))


def _guided(guidance: Guidance, velocities: Mapping[Branch, Tensor]) -> Tensor:
    conditional = velocities["conditional"]
    if "text" not in velocities:
        weight = guidance.weight if guidance.mode == "joint" else guidance.text_weight
        return weight * conditional + (1 - weight) * velocities["negative"]
    text = velocities["text"]
    guided = text + guidance.reward_weight * (conditional - text)
    if "negative" in velocities:
        guided = guided + (guidance.text_weight - 1) * (text - velocities["negative"])
    return guided

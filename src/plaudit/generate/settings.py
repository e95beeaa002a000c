"""How clips are sampled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from plaudit.errors import RecipeError
from plaudit.flow.guidance import Guidance
from plaudit.flow.solvers import Solver
from plaudit.flow.trajectories import Trajectory
from plaudit.settings import Count, Positive, Settings


class Piece(Settings):
    """How long a clip is, and how the network goes over one that is longer than what it was trained on.

    seconds: None is the model's own length. loop: the end goes on at the start; the length is then whole latent frames.
    window: seconds that the network sees at once, None what it was trained on; a longer window than the clip is one
    pass. overlap: the share of a window that its neighbour shares at least, see plaudit.flow.windows.
    """

    seconds: Positive | None = None
    loop: bool = False
    window: Positive | None = None
    overlap: float = Field(default=0.25, gt=0, lt=1)


class SamplingSettings(Settings):
    """Solver, guidance, the score asked for, and what is said besides the prompt.

    score: in the reward's own units; None asks for no score (the null embedding, or a model that takes none).
    prefix: put before every prompt. negative_prompt: what the negative pass is told; "" is the empty string's encoding.
    shift: of the time grid, see plaudit.flow.time_grid. precision: "bf16" runs the network under bfloat16
    autocast, "no" in float32. trajectory: how a second checkpoint takes part, where there is one.
    """

    steps: Count = 25
    solver: Solver = "euler"
    shift: Positive = 1.0
    guidance: Guidance = Guidance()
    score: float | None = None
    prefix: str = ""
    negative_prompt: str = "noise, distortion, low quality, static, hum, hiss, clipping, muffled, amateur recording"
    precision: Literal["bf16", "no"] = "bf16"
    piece: Piece = Piece()
    trajectory: Trajectory | None = None

    def changed(self, **changes: Any) -> SamplingSettings:
        """These settings with some replaced; `weight` is the guidance's, and None leaves a setting as it is.

        RecipeError, in one line, for a value that does not fit.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        values = self.model_dump()
        if "weight" in changes:
            values["guidance"]["weight"] = changes.pop("weight")
        try:
            return SamplingSettings.model_validate(values | changes)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RecipeError(f"sampling: {where}: {first['msg'].removeprefix('Value error, ')}") from None

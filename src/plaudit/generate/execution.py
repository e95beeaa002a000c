"""How sampling is run on a machine: how many clips at once, in how much memory, compiled or not.

None of it changes a clip beyond rounding.
"""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from plaudit.backbone.config import BackboneConfig
from plaudit.errors import PromptError
from plaudit.flow.guidance import branches
from plaudit.generate.settings import SamplingSettings
from plaudit.settings import Count, Positive, Settings

GIB = 2**30
MOST = 64
"""Clips at once that fill any accelerator: more make the first clip wait and nothing faster (ours)."""

CACHED = 8 * 2**20
"""Bytes of the audio stream up to which rows share a pass on a CPU: more leave its caches and slow down (ours)."""

SHARE = {"cpu": 0.25, "cuda": 0.6}
"""Of a device's whole memory, what sampling may take where no budget is given (ours). The whole memory and not what is
free now, so that the same machine always cuts the same batches."""


class Execution(Settings):
    """batch: clips sampled at once; None takes as many as `memory` allows and the device profits from.
    memory: GiB that the network may take while sampling, besides its weights; None is a share of the device's.
    compile: "default" compiles the network with torch.compile, "graphs" also replays it as CUDA graphs: minutes before
    the first clip, for many clips.
    """

    batch: Count | None = None
    memory: Positive | None = None
    compile: Literal["no", "default", "graphs"] = "no"


def batch_size(
    config: BackboneConfig, frames: int, settings: SamplingSettings, execution: Execution, device: torch.device
) -> int:
    """How many clips of `frames` latents to sample at once.

    PromptError where the memory given does not hold one.
    """
    if execution.batch is not None:
        return execution.batch
    rows = len(branches(settings.guidance, scored=settings.score is not None))
    clip = rows * row_bytes(config, frames, settings.precision, device.type == "cpu" and settings.precision == "bf16")
    total = execution.memory * GIB if execution.memory is not None else SHARE[_kind(device)] * _whole(device)
    if total < clip:
        raise PromptError(
            f"one clip of {frames} latents takes {clip / GIB:.2f} GiB and {total / GIB:.2f} are allowed; "
            "allow more memory or make shorter clips"
        )
    sensible = MOST if device.type != "cpu" else max(1, int(CACHED / (4 * frames * config.hidden_dim * rows)))
    return min(sensible, int(total / clip))


def row_bytes(config: BackboneConfig, frames: int, precision: str, matrix: bool) -> int:
    """The most memory that one row of a pass takes besides the weights, for `frames` latents, roughly.

    matrix: whether attention writes its weights out (`plaudit.backbone.inference`).
    """
    size, width, inner = (2 if precision == "bf16" else 4), config.hidden_dim, config.mlp_dim
    length = frames + config.text_length
    streams = 6 * 4 * width * length  # the streams, their norms and what is added to them, in float32
    # A gated MLP holds both halves, their product and its windows of three or, at the input, seven frames.
    mlp = (2 + 1 + 1 + 7) * inner * size * frames
    attention = 4 * 3 * width * size * length + (2 * config.num_heads * size * length**2 if matrix else 0)
    return streams + max(mlp, attention)


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "cpu"


def _whole(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)

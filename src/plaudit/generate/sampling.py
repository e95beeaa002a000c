"""Sampling latents: noise, guidance, windows and solver around one network, many clips at a time.

None of it changes a clip beyond rounding.

A Plan is made from settings and a model; `planned_velocity` makes of the velocities of networks that of the piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import psutil
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.base import Backbone, Conditions
from plaudit.errors import PromptError, RecipeError
from plaudit.flow import (
    Branch,
    Velocity,
    Windows,
    branches,
    combine,
    integrate,
    plan_windows,
    shared,
    switch_step,
    windowed,
)
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.types import Codec, TextFeatures

GIB = 2**30
MAX_BATCH = 64
"""Clips at once that fill any accelerator: more make the first clip wait and nothing faster (ours)."""

CPU_CACHE_BYTES = 8 * 2**20
"""Bytes of the audio stream up to which rows share a pass on a CPU: more leave its caches and slow down (ours)."""

MEMORY_FRACTION = {"cpu": 0.25, "cuda": 0.6}
"""Of a device's whole memory, what sampling may take where no budget is given (ours). The whole memory and not what is
free now, so that the same machine always cuts the same batches."""


def batch_size(
    network: Backbone, frames: int, settings: SamplingSettings, execution: Execution, device: torch.device
) -> int:
    """How many clips of `frames` latents to sample at once.

    PromptError where the memory given does not hold one.
    """
    if execution.batch is not None:
        return execution.batch
    rows = len(branches(settings.guidance, scored=settings.score is not None))
    clip = rows * network.row_bytes(frames, settings.precision, device)
    total = execution.memory * GIB if execution.memory is not None else MEMORY_FRACTION[_kind(device)] * _whole(device)
    if total < clip:
        raise PromptError(
            f"one clip of {frames} latents takes {clip / GIB:.2f} GiB and {total / GIB:.2f} are allowed; "
            "allow more memory or make shorter clips"
        )
    useful = MAX_BATCH
    if device.type == "cpu":
        useful = max(1, int(CPU_CACHE_BYTES / (4 * frames * network.config.hidden_dim * rows)))
    return min(useful, int(total / clip))


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "cpu"


def _whole(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


@dataclass(frozen=True)
class SamplingPlan:
    """How the latents of a piece are sampled.

    windows: over the piece; None is one pass. second: the network that shares the trajectory as the settings say.
    at_once: windows of every clip that are evaluated as one batch, None all.
    """

    windows: Windows | None = None
    second: Backbone | None = None
    at_once: int | None = None

    @property
    def count(self) -> int:
        """Passes that a clip is made in at each evaluation."""
        return 1 if self.windows is None else len(self.windows)


SINGLE_PASS = SamplingPlan()
"""One network, one pass."""


def piece_frames(settings: SamplingSettings, seconds: float, codec: Codec) -> int:
    """Latent frames of a clip: the whole ones within its seconds, or of a loop as near to them as whole frames come.

    seconds: of a clip whose settings name none. RecipeError for less than a frame.
    """
    wanted = settings.piece.seconds or seconds
    exact = wanted * codec.sample_rate / codec.hop
    frames = round(exact) if settings.piece.loop else int(exact + 1e-9)
    if frames < 1:
        raise RecipeError(f"{wanted:g} s is less than one latent frame of {codec.hop / codec.sample_rate:.3g} s")
    return frames


def plan_piece(
    settings: SamplingSettings, seconds: float, codec: Codec, second: Backbone | None = None
) -> SamplingPlan:
    """The plan of clips under `settings`, from a model trained on clips of `seconds`.

    RecipeError where a second checkpoint comes without a trajectory, or a trajectory without one.
    """
    if (second is None) != (settings.trajectory is None):
        missing = "a second model" if second is None else "settings of how to share it (sampling.trajectory)"
        raise RecipeError(f"two checkpoints on one trajectory need {missing}")
    piece, frames = settings.piece, piece_frames(settings, seconds, codec)
    length = max(1, int((piece.window or seconds) * codec.sample_rate / codec.hop + 1e-9))
    if frames <= length and not piece.loop:
        return SamplingPlan(None, second)
    overlap = max(1, min(round(piece.overlap * length), length - 1))
    return SamplingPlan(plan_windows(frames, length, overlap, piece.loop), second)


def planned_velocity(
    first: Velocity, second: Velocity | None, settings: SamplingSettings, plan: SamplingPlan
) -> Velocity:
    """The velocity of whole pieces from those of the plan's networks, which take any number of windows of each clip."""
    velocity = first
    if second is not None and settings.trajectory is not None:
        velocity = shared(first, second, settings.trajectory, settings.steps)
    return velocity if plan.windows is None else windowed(velocity, plan.windows, plan.at_once)


def velocity_jumps(settings: SamplingSettings) -> set[int]:
    """Steps at which the velocity becomes another function: where guidance goes on or off, and at a switch."""
    jumps = settings.guidance.switches(settings.steps)
    if settings.trajectory is not None and settings.trajectory.mode == "switch":
        jumps.add(switch_step(settings.trajectory.at, settings.steps))
    return jumps


def initial_noise(seeds: Sequence[int], frames: int, latent_dim: int) -> Tensor:
    """Standard normal noise [B, frames, C]; each clip's from its own seed, so that it is the same in any batch."""
    return torch.stack(
        [torch.randn(frames, latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.inference_mode()
def sample_latents(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
    plan: SamplingPlan = SINGLE_PASS,
) -> Tensor:
    """Codec latents [B, N, C] for prompts `text` (B of them), from `noise` [B, N, C]: see `initial_noise`.

    negative: features of the negative prompt, one for all or one per clip. scores [B] in the reward's own units, or
    None for no score. What needs the prompts alone is computed once, and all passes of a step run as one batch. For
    speed give the network as `plaudit.generate.sampling` makes it. plan: of what is more than one pass of one network.
    """
    velocity = _velocity(model, text, negative, scores, len(noise), settings, plan)
    return _integrated(model, velocity, noise.to(model.latent_mean.device), settings)


def differentiable_latents(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
    plan: SamplingPlan = SINGLE_PASS,
) -> Tensor:
    """The same with gradients to `noise`, which is on the model's device.

    Of each evaluation of the network only the input is kept, and the rest computed again on the way back, so that the
    memory is one evaluation's whatever the number of steps. Freeze the model's parameters first.
    """
    velocity = _velocity(model, text, negative, scores, len(noise), settings, plan)

    def checkpointed(x: Tensor, t: float, step: int) -> Tensor:
        found: Tensor = checkpoint(velocity, x, t, step, use_reentrant=False)
        return found

    return _integrated(model, checkpointed, noise, settings)


def _integrated(model: Backbone, velocity: Velocity, noise: Tensor, settings: SamplingSettings) -> Tensor:
    jumps = velocity_jumps(settings)
    return model.unstandardize(integrate(velocity, noise, settings.steps, settings.solver, settings.shift, jumps))


def _velocity(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    clips: int,
    settings: SamplingSettings,
    plan: SamplingPlan,
) -> Velocity:
    """The velocity of whole pieces, of all networks that the plan names."""
    first = guided_velocity(model, text, negative, scores, clips, settings)
    if plan.second is None:
        return planned_velocity(first, None, settings, plan)
    # A second checkpoint may be one that takes no score; of the first, being asked for one is the user's error.
    asked = None if plan.second.config.injection == "none" else scores
    second = guided_velocity(plan.second, text, negative, asked, clips, settings)
    return planned_velocity(first, second, settings, plan)


def guided_velocity(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    batch: int,
    settings: SamplingSettings,
) -> Velocity:
    """The guided velocity of `batch` clips, a function of x [B, N, C], time and step.

    x may hold W parts of each clip instead of the whole, [W B, N, C], first the first part of every clip.
    PromptError where prompts and clips are not as many.
    """
    device = model.latent_mean.device
    if not len(text) == batch or len(negative) not in (1, batch):
        raise PromptError(
            f"{batch} clips need {batch} prompts and 1 or {batch} negatives: {len(text)}, {len(negative)}"
        )
    unwanted = negative.rows(torch.zeros(batch, dtype=torch.long)) if len(negative) == 1 else negative
    told: dict[Branch, TextFeatures] = {"conditional": text, "text": text, "negative": unwanted}
    null = torch.full((batch,), torch.nan, device=device)
    asked: dict[Branch, Tensor] = {} if scores is None else {"conditional": scores.to(device)}
    guidances = [settings.guidance.at(step / settings.steps) for step in range(settings.steps)]
    bf16 = settings.precision == "bf16"

    @cache
    def conditions(needed: tuple[Branch, ...], parts: int) -> Conditions:
        """Of the passes that a step needs, `parts` times each."""
        features = [told[branch].to(device) for branch in needed]
        both = TextFeatures(torch.cat([f.tokens for f in features]), torch.cat([f.pooled for f in features]))
        wanted = torch.cat([asked.get(branch, null) for branch in needed]) if asked else None
        made = model.conditions(both, wanted)
        return made if parts == 1 else Conditions.cat([p.repeat(parts) for p in made.split(batch)])

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        guidance = guidances[step]
        needed = branches(guidance, scored=bool(asked))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            rows = conditions(needed, len(x) // batch)
            predicted = model.velocity(x, rows, torch.full((1,), t, device=device))
        return combine(guidance, dict(zip(needed, predicted.float().chunk(len(needed)), strict=True)))

    return velocity


Pass = Callable[[Tensor, Conditions, Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """Text features and seeds -> latents, at most `batch` clips of `frames` at once; made by `Sampler.build`."""

    network: Backbone
    settings: SamplingSettings
    frames: int
    batch: int
    compiled: bool
    plan: SamplingPlan = SINGLE_PASS

    @classmethod
    def build(
        cls,
        model: Backbone,
        settings: SamplingSettings,
        frames: int,
        execution: Execution,
        plan: SamplingPlan = SINGLE_PASS,
    ) -> Sampler:
        """A sampler of `model` as it is now: later changes of its weights may pass it by.

        Of a plan with windows, as many are evaluated at once as there would be clips of a window's length.
        PromptError where the memory that `execution` allows does not hold one clip.
        """
        length = frames if plan.windows is None else plan.windows.length
        networks = [model] if plan.second is None else [model, plan.second]
        device = model.latent_mean.device
        at_once = min(batch_size(network, length, settings, execution, device) for network in networks)
        batch = max(1, at_once // plan.count)
        first, *others = (_prepared(network, settings, execution) for network in networks)
        plan = replace(plan, second=others[0] if others else None, at_once=max(1, at_once // batch))
        return cls(first, settings, frames, batch, execution.compile != "no", plan)

    def latents(self, text: TextFeatures, negative: TextFeatures, seeds: Sequence[int]) -> Tensor:
        """Codec latents [B, frames, C] for features of B prompts, of the negative prompt, and B seeds."""
        # What is compiled is compiled for one shape, so a short batch is filled up with its last clip.
        spare = self.batch - len(seeds) if self.compiled else 0
        rows = torch.tensor([*range(len(seeds)), *[len(seeds) - 1] * spare])
        noise = initial_noise(seeds, self.frames, self.network.config.latent_dim)[rows]
        scores = None if self.settings.score is None else torch.full((len(rows),), self.settings.score)
        made = sample_latents(self.network, text.rows(rows), negative, scores, noise, self.settings, self.plan)
        return made[: len(seeds)]

    def warm_up(self) -> float:
        """Seconds of a first batch, which compiling is part of; 0 where nothing is compiled and none is run."""
        if not self.compiled:
            return 0.0
        began = time.perf_counter()
        empty = self.network.empty_text(1)
        self.latents(empty.rows(torch.zeros(1, dtype=torch.long)), empty, [0]).cpu()
        return time.perf_counter() - began


def _prepared(model: Backbone, settings: SamplingSettings, execution: Execution) -> Backbone:
    compiled = execution.compile != "no"
    network = model
    if compiled or settings.precision == "bf16":
        network = model.for_inference(torch.bfloat16 if settings.precision == "bf16" else torch.float32)
    if compiled:
        graphs = execution.compile == "graphs"
        network.velocity = _compiled(network.velocity, graphs)  # type: ignore[method-assign,assignment]
    return network


def _compiled(velocity: Pass, graphs: bool) -> Pass:
    fast: Pass = torch.compile(velocity, dynamic=False, mode="reduce-overhead" if graphs else "default")
    if not graphs:
        return fast

    def replayed(x: Tensor, told: Conditions, t: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        # A graph writes to the same memory each time, and solvers look back.
        return fast(x, told, t).clone()

    return replayed

"""Sampling latents: noise, guidance, windows and a solver around one network or two, many clips at a time.

A Sampler joins the parts: batches that fit the memory, networks prepared for inference, and the plan of a piece.
Batching and preparing change no clip beyond rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plaudit.backbone.base import Backbone, Conditions
from plaudit.backbone.compiling import blocks_of, compile_blocks, compiled
from plaudit.devices import ACCELERATOR_BATCH, activation_memory
from plaudit.errors import PromptError, RecipeError
from plaudit.flow import (
    Branch,
    OnStep,
    Velocity,
    Windows,
    branches,
    combine,
    integrate,
    step_progress,
    switch_step,
    time_grid,
    two_model_velocity,
    unobserved,
    windowed,
)
from plaudit.generate.philox import cuda_normals
from plaudit.generate.settings import Execution, SamplingPrecision, SamplingSettings
from plaudit.types import TextFeatures
from plaudit.workers import cpu_workers, even_slices

GIB = 2**30

CPU_CACHE_BYTES = 8 * 2**20
"""Bytes of the audio stream up to which rows are batched on a CPU: more leave its caches and slow down (ours)."""


@dataclass(frozen=True)
class SamplingPlan:
    """The plan for sampling the latents of a piece.

    windows: over the piece; None is one pass. second: the second network of a trajectory, used as the settings say.
    at_once: windows of every clip that are evaluated as one batch, None all.
    """

    windows: Windows | None = None
    second: Backbone | None = None
    at_once: int | None = None


SINGLE_PASS = SamplingPlan()
"""One network, one pass."""


@dataclass(frozen=True)
class Sampler:
    """Text features and seeds -> latents, at most `batch` clips of `frames` at once.

    on_step(step, steps) is called before each solver step, on a CPU by each of the threads that share the clips; what
    it raises ends the sampling.
    """

    network: Backbone
    settings: SamplingSettings
    frames: int
    batch: int
    compiled: bool
    plan: SamplingPlan = SINGLE_PASS
    on_step: OnStep = unobserved

    @classmethod
    def build(
        cls,
        model: Backbone,
        settings: SamplingSettings,
        frames: int,
        execution: Execution,
        plan: SamplingPlan = SINGLE_PASS,
    ) -> Sampler:
        """A sampler of `model` as it is now, which need not follow later changes of its weights.

        As many windows are evaluated at once as clips of a window's length would be. PromptError where the memory that
        `execution` allows does not hold one clip.
        """
        length = frames if plan.windows is None else plan.windows.length
        networks = [model] if plan.second is None else [model, plan.second]
        device = model.latent_mean.device
        at_once = min(batch_size(network, length, settings, execution, device) for network in networks)
        batch = max(1, at_once // (1 if plan.windows is None else len(plan.windows)))
        first, *others = (_prepared(network, settings, execution) for network in networks)
        plan = replace(plan, second=others[0] if others else None, at_once=max(1, at_once // batch))
        return cls(first, settings, frames, batch, execution.compile != "no", plan)

    def latents(self, text: TextFeatures, negative: TextFeatures, seeds: Sequence[int]) -> Tensor:
        """Codec latents [B, frames, C] for features of B prompts, of the negative prompt, and B seeds."""
        return self._clip_by_clip(self._latents, text, negative, seeds)

    def trajectories(self, text: TextFeatures, negative: TextFeatures, seeds: Sequence[int], every: int) -> Tensor:
        """The network's latents before every `every`-th step and after the last, for B prompts of one pass: [B, steps /
        every + 1, frames, C], from noise to music; `every` divides the steps."""
        return self._clip_by_clip(partial(self._trajectories, every=every), text, negative, seeds)

    def _clip_by_clip(
        self,
        function: Callable[[TextFeatures, TextFeatures, Sequence[int]], Tensor],
        text: TextFeatures,
        negative: TextFeatures,
        seeds: Sequence[int],
    ) -> Tensor:
        """function(text, negative, seeds) of all clips; on a CPU threads share them (`plaudit.workers`)."""
        if self.compiled or self.network.latent_mean.device.type != "cpu":
            return function(text, negative, seeds)
        every = torch.arange(len(seeds))

        def of(clips: slice) -> Tensor:
            negatives = negative if len(negative) == 1 else negative.rows(every[clips])
            return function(text.rows(every[clips]), negatives, seeds[clips])

        # The precision of float32 products is the process's: threads must find and leave it as it is.
        with float32_products(self.settings.precision), cpu_workers(len(seeds)) as workers:
            return torch.cat(workers.map(of, even_slices(len(seeds), workers.count)))

    def _latents(self, text: TextFeatures, negative: TextFeatures, seeds: Sequence[int]) -> Tensor:
        # A compiled network has one shape, so a short batch is filled up with its last clip.
        spare = self.batch - len(seeds) if self.compiled else 0
        rows = torch.tensor([*range(len(seeds)), *[len(seeds) - 1] * spare])
        noise = initial_noise(seeds, self.frames, self.network.config.latent_dim, self.settings.noise)[rows]
        scores = None if self.settings.score is None else torch.full((len(rows),), self.settings.score)
        latents = sample_latents(
            self.network, text.rows(rows), negative, scores, noise, self.settings, self.plan, self.on_step
        )
        return latents[: len(seeds)]

    @torch.inference_mode()
    def _trajectories(self, text: TextFeatures, negative: TextFeatures, seeds: Sequence[int], every: int) -> Tensor:
        settings, clips = self.settings, len(seeds)
        scores = None if settings.score is None else torch.full((clips,), settings.score)
        velocity = _piece_velocity(self.network, text, negative, scores, clips, settings, self.plan)
        states: dict[int, Tensor] = {}

        def recorded(x: Tensor, t: float, step: int) -> Tensor:
            states.setdefault(step, x)  # a solver's first evaluation of a step is at its start
            return velocity(x, t, step)

        noise = initial_noise(seeds, self.frames, self.network.config.latent_dim, settings.noise)
        noise = noise.to(self.network.latent_mean.device)
        last = integrate(recorded, noise, settings.steps, settings.solver, settings.shift, velocity_jumps(settings))
        return torch.stack([*(states[step] for step in range(0, settings.steps, every)), last], 1)

    @torch.inference_mode()
    def warm_up(self) -> float:
        """Seconds of compiling, with one evaluation of each kind that sampling needs; 0, and nothing is evaluated,
        where nothing is compiled."""
        if not self.compiled:
            return 0.0
        began, settings = time.perf_counter(), self.settings
        empty = self.network.empty_text(1)
        text = empty.rows(torch.zeros(self.batch, dtype=torch.long))
        scores = None if settings.score is None else torch.full((self.batch,), settings.score)
        velocity = _piece_velocity(self.network, text, empty, scores, self.batch, settings, self.plan)
        noise = initial_noise([0] * self.batch, self.frames, self.network.config.latent_dim)
        noise = noise.to(self.network.latent_mean.device)
        steps = sorted(step for step in {0, *velocity_jumps(settings)} if step < settings.steps)
        # A CUDA graph is recorded in the second evaluation and replayed from the third on.
        for step in steps * (3 if noise.is_cuda else 1):
            velocity(noise, 1 - step / settings.steps, step).cpu()
        return time.perf_counter() - began


def initial_noise(
    seeds: Sequence[int], frames: int, latent_dim: int, generator: Literal["cpu", "cuda"] = "cpu"
) -> Tensor:
    """Standard normal noise [B, frames, C]; each clip's from its own seed, so that it is the same in any batch.

    generator: PyTorch's on the CPU, or the one on CUDA, computed here (plaudit.generate.philox).
    """
    if generator == "cuda":
        return torch.stack([cuda_normals(seed, frames * latent_dim).view(frames, latent_dim) for seed in seeds])
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
    on_step: OnStep = unobserved,
) -> Tensor:
    """Codec latents [B, N, C] for prompts `text` (B of them), from `noise` [B, N, C]: see `initial_noise`.

    negative: features of the negative prompt, one for all or one per clip. scores [B] in the reward's own units, or
    None for no score. Conditions are computed once, and all passes of a step run as one batch. A Sampler's network is
    faster than `model` itself.
    """
    velocity = _piece_velocity(model, text, negative, scores, len(noise), settings, plan)
    return _integrated(model, velocity, noise.to(model.latent_mean.device), settings, on_step)


def differentiable_latents(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    noise: Tensor,
    settings: SamplingSettings,
    plan: SamplingPlan = SINGLE_PASS,
) -> Tensor:
    """`sample_latents` with gradients to `noise`, which is on the model's device.

    Each evaluation of the network is checkpointed, so memory is that of one evaluation whatever the number of steps.
    Freeze the model's parameters first.
    """
    velocity = _piece_velocity(model, text, negative, scores, len(noise), settings, plan)

    def checkpointed(x: Tensor, t: float, step: int) -> Tensor:
        result: Tensor = checkpoint(velocity, x, t, step, use_reentrant=False)
        return result

    return _integrated(model, checkpointed, noise, settings)


def _integrated(
    model: Backbone, velocity: Velocity, noise: Tensor, settings: SamplingSettings, on_step: OnStep = unobserved
) -> Tensor:
    jumps = velocity_jumps(settings)
    return model.unstandardize(
        integrate(velocity, noise, settings.steps, settings.solver, settings.shift, jumps, on_step)
    )


def velocity_jumps(settings: SamplingSettings) -> set[int]:
    """Steps at which the velocity function changes: at the ends of guidance intervals and at a model switch."""
    boundaries = settings.boundaries
    jumps = settings.guidance.switches(step_progress(settings.steps, boundaries), boundaries)
    if settings.trajectory is not None and settings.trajectory.mode == "switch":
        jumps.add(switch_step(settings.trajectory.at, settings.steps, boundaries))
    return jumps


def _piece_velocity(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    clips: int,
    settings: SamplingSettings,
    plan: SamplingPlan,
) -> Velocity:
    """The velocity of pieces of any length, by one model or two."""
    velocity = guided_velocity(model, text, negative, scores, clips, settings)
    if plan.second is not None and settings.trajectory is not None:
        if settings.trajectory.second_score is not None:
            scores = torch.full((clips,), settings.trajectory.second_score)
        elif plan.second.config.injection == "none":  # the first model's score is not meant for it
            scores = None
        second = guided_velocity(plan.second, text, negative, scores, clips, settings)
        velocity = two_model_velocity(velocity, second, settings.trajectory, settings.steps, settings.boundaries)
    return velocity if plan.windows is None else windowed(velocity, plan.windows, plan.at_once)


def guided_velocity(
    model: Backbone,
    text: TextFeatures,
    negative: TextFeatures,
    scores: Tensor | None,
    batch: int,
    settings: SamplingSettings,
) -> Velocity:
    """The guided velocity of `batch` clips, a function of x [B, N, C], time and step.

    x may also hold W windows of each clip, [W B, N, C], first the first window of every clip. PromptError where the
    numbers of prompts and clips differ, RecipeError for a solver that evaluates a model of average velocities within a
    step.
    """
    device = model.latent_mean.device
    if not len(text) == batch or len(negative) not in (1, batch):
        raise PromptError(
            f"{batch} clips need {batch} prompts and 1 or {batch} negatives: {len(text)}, {len(negative)}"
        )
    negatives = negative.rows(torch.zeros(batch, dtype=torch.long)) if len(negative) == 1 else negative
    texts: dict[Branch, TextFeatures] = {"conditional": text, "text": text, "negative": negatives}
    null = torch.full((batch,), torch.nan, device=device)
    boundaries = settings.boundaries
    guidances = [settings.guidance.at(progress, boundaries) for progress in step_progress(settings.steps, boundaries)]
    times = time_grid(settings.steps, settings.shift)
    if model.average_velocity and settings.solver != "euler":
        raise RecipeError(f"a model of average velocities is sampled with solver euler, not {settings.solver}")

    @cache
    def conditions(passes: tuple[Branch, ...], windows: int) -> Conditions:
        """Of all passes of a step, repeated for each window."""
        features = [texts[branch].to(device) for branch in passes]
        joined = TextFeatures.cat(features)
        target = None
        if scores is not None:
            target = torch.cat([scores.to(device) if branch == "conditional" else null for branch in passes])
        rows = model.conditions(joined, target)
        return rows if windows == 1 else Conditions.cat([part.repeat(windows) for part in rows.split(batch)])

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        guidance = guidances[step]
        passes = branches(guidance, scored=scores is not None)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with autocast, float32_products(settings.precision):
            rows = conditions(passes, len(x) // batch)
            interval = (t, times[step + 1]) if model.average_velocity else (t,)
            at = [torch.full((1,), time, device=device) for time in interval]
            predicted = model.velocity(x, rows, *at)
        velocities = dict(zip(passes, predicted.float().chunk(len(passes)), strict=True))
        return combine(guidance, velocities, x, at[0])

    return velocity


@contextmanager
def float32_products(precision: SamplingPrecision) -> Iterator[None]:
    """Float32 products and convolutions on CUDA in TF32 for "tf32", in float32 for "no"; as they were afterwards."""
    if precision == "bf16":
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def batch_size(
    network: Backbone, frames: int, settings: SamplingSettings, execution: Execution, device: torch.device
) -> int:
    """The number of clips of `frames` latents to sample at once; PromptError where not even one fits into memory."""
    if execution.batch is not None:
        return execution.batch
    rows = len(branches(settings.guidance, scored=settings.score is not None))
    clip = rows * network.row_bytes(frames, settings.precision, device)
    allowed = activation_memory(device) if execution.memory is None else execution.memory * GIB
    if allowed < clip:
        raise PromptError(
            f"one clip of {frames} latents takes {clip / GIB:.2f} GiB and {allowed / GIB:.2f} are allowed; "
            "allow more memory or make shorter clips"
        )
    useful = ACCELERATOR_BATCH
    if device.type == "cpu":
        useful = max(1, int(CPU_CACHE_BYTES / (4 * frames * network.config.hidden_dim * rows)))
    return min(useful, int(allowed / clip))


Pass = Callable[..., Tensor]
"""Latents, conditions, and the time or two times of an evaluation -> a velocity."""


def _prepared(model: Backbone, settings: SamplingSettings, execution: Execution) -> Backbone:
    """The network in the layout, precision and compilation that sampling runs it in."""
    if execution.compile == "no" and settings.precision != "bf16":
        return model
    network = model.for_inference(torch.bfloat16 if settings.precision == "bf16" else torch.float32)
    if execution.compile == "default":
        compile_blocks(blocks_of(network))
    elif execution.compile == "graphs":
        network.velocity = _replayed(network.velocity)  # type: ignore[method-assign,assignment]
    return network


def _replayed(velocity: Pass) -> Pass:
    """`velocity` compiled as a whole, and replayed as a CUDA graph."""
    fast = compiled(velocity, mode="reduce-overhead")

    def replayed(x: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        # A graph writes to the same memory each time, and solvers look back.
        return fast(x, conditions, t).clone()

    return replayed

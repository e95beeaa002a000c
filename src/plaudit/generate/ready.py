"""A network made ready for many clips: weights laid out for its products, compiled where asked, batches of one size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from plaudit.backbone.fluxaudio import Conditions, FluxAudio
from plaudit.backbone.inference import for_inference
from plaudit.generate.execution import Execution, batch_size
from plaudit.generate.pieces import PLAIN, Plan
from plaudit.generate.sampler import initial_noise, sample_latents
from plaudit.generate.settings import SamplingSettings
from plaudit.types import TextFeatures

Pass = Callable[[Tensor, Conditions, Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """Text features and seeds -> latents, at most `batch` clips of `frames` at once; made by `make_ready`."""

    network: FluxAudio
    settings: SamplingSettings
    frames: int
    batch: int
    compiled: bool
    plan: Plan = PLAIN

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


def make_ready(
    model: FluxAudio, settings: SamplingSettings, frames: int, execution: Execution, plan: Plan = PLAIN
) -> Sampler:
    """A sampler of `model` as it is now: later changes of its weights may pass it by.

    Of a plan with windows, as many are evaluated at once as there would be clips of a window's length.
    PromptError where the memory that `execution` allows does not hold one clip.
    """
    length = frames if plan.windows is None else plan.windows.length
    networks = [model] if plan.second is None else [model, plan.second]
    device = model.latent_mean.device
    at_once = min(batch_size(network.config, length, settings, execution, device) for network in networks)
    batch = max(1, at_once // plan.count)
    first, *others = (_ready(network, settings, execution) for network in networks)
    plan = replace(plan, second=others[0] if others else None, at_once=max(1, at_once // batch))
    return Sampler(first, settings, frames, batch, execution.compile != "no", plan)


def _ready(model: FluxAudio, settings: SamplingSettings, execution: Execution) -> FluxAudio:
    compiled = execution.compile != "no"
    network = model
    if compiled or settings.precision == "bf16":
        network = for_inference(model, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
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

"""Solvers against each other: how near to the true trajectory, how good a clip, at how many network evaluations.

All start from the same noise of each prompt. The reference is Heun's method with 200 steps in float32, which stands for
the solution of the flow itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from plaudit.codec.chunks import decode_piece
from plaudit.devices import device_of
from plaudit.errors import PromptError, RecipeError
from plaudit.evaluate.embeddings import embed_waves
from plaudit.evaluate.pages.charts import Series, lines, save_chart
from plaudit.evaluate.pages.html import LIGHT
from plaudit.flow import branches, integrate
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic
from plaudit.generate.settings import SOLVERS, Execution, SamplingSettings, Solver, Steps
from plaudit.settings import Positive, Seed, Settings
from plaudit.statistics import Interval, bootstrap_mean, paired_difference
from plaudit.types import Embedder, Reward

Array = NDArray[np.float64]


class SolverGrid(Settings):
    """What is compared: every solver at every number of steps on every grid; seed: of the first prompt's noise."""

    solvers: tuple[Solver, ...] = SOLVERS
    steps: tuple[Steps, ...] = (4, 8, 16, 32)
    shifts: tuple[Positive, ...] = (1.0,)
    reference_steps: Steps = 200
    seed: Seed = 0

    @classmethod
    def chosen(cls, **values: Any) -> SolverGrid:
        """The grid of some values, None for what stays as it is; RecipeError, in one line, where one does not fit."""
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            raise RecipeError(f"solvers to compare: {first['loc'][0]}: {first['msg']}") from None


@dataclass(frozen=True)
class Evaluators:
    """The models that score clips."""

    clap: Embedder
    reward: Reward


@dataclass(frozen=True)
class Point:
    """One way to sample, over all prompts.

    evaluations: passes of the network per clip, each branch of guidance counted. seconds: of sampling per clip, without
    text, decoding and scoring. distance: RMS difference of final latents from the reference, relative to the RMS of the
    reference, both standardized. clap, reward: of the decoded clips. clap_gain, reward_gain: over the
    reference's clips, prompt by prompt. All with 95 % bootstrap intervals over prompts.
    """

    solver: Solver
    steps: int
    shift: float
    evaluations: int
    seconds: float
    distance: Interval
    clap: Interval
    reward: Interval
    clap_gain: Interval
    reward_gain: Interval


@dataclass(frozen=True)
class Comparison:
    """The references (distance 0) and the points of a grid."""

    references: list[Point]
    points: list[Point]

    @property
    def rows(self) -> list[Point]:
        """All of them, references first."""
        return [*self.references, *self.points]


@dataclass(frozen=True)
class _Sampled:
    """latents [B, N, C], standardized; scores [B]."""

    latents: Tensor
    seconds: float
    clap: Array
    reward: Array


def bench_solvers(
    music: TextToMusic,
    prompts: Sequence[str],
    evaluators: Evaluators,
    grid: SolverGrid,
    execution: Execution = DEFAULT_EXECUTION,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """All points of the grid, under the model's own settings otherwise.

    One reference serves all shifts, unless guidance has a schedule, which follows the steps and thus the shift.
    """
    if len(prompts) < 2:
        raise PromptError("solvers are compared over at least two prompts, for the sake of the intervals")
    base = music.config.sampling
    ways = [
        base.changed(solver=solver, steps=steps, shift=shift)
        for shift in grid.shifts
        for solver in grid.solvers
        for steps in grid.steps
    ]
    exact = base.changed(solver="heun", steps=grid.reference_steps, precision="no")
    one_solution = base.guidance.schedule == "constant"
    shifts = (1.0,) if one_solution else grid.shifts
    total, done = sum(evaluations(way) for way in [*ways, *(exact.changed(shift=shift) for shift in shifts)]), 0

    def sampled(settings: SamplingSettings) -> _Sampled:
        nonlocal done
        clips = _sample(music, prompts, evaluators, settings, grid.seed, execution)
        done += evaluations(settings)
        progress(done, total)
        return clips

    # A warm-up, so that one-time costs of the process are in no figure.
    _sample(music, prompts[:1], evaluators, base.changed(steps=1), grid.seed, execution)
    solutions = {shift: sampled(exact.changed(shift=shift)) for shift in shifts}
    references = [_point(exact.changed(shift=shift), clips, clips) for shift, clips in solutions.items()]
    points = [_point(way, sampled(way), solutions[1.0 if one_solution else way.shift]) for way in ways]
    return Comparison(references, points)


def evaluations(settings: SamplingSettings) -> int:
    """Passes of the network per clip under `settings`, each branch of guidance counted."""
    count = 0

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        nonlocal count
        guidance = settings.guidance.at(step / settings.steps)
        count += len(branches(guidance, scored=settings.score is not None))
        return x

    integrate(velocity, torch.zeros(1), settings.steps, settings.solver, settings.shift)
    return count


def _sample(
    music: TextToMusic,
    prompts: Sequence[str],
    evaluators: Evaluators,
    settings: SamplingSettings,
    seed: int,
    execution: Execution,
) -> _Sampled:
    prefixed = [settings.text_of(prompt) for prompt in prompts]
    with torch.inference_mode():
        text, negative = music.encode_texts(prefixed), music.encode_texts([settings.negative_prompt])
    sampler, latents, seconds = music.sampler(settings, execution), [], 0.0
    for start in range(0, len(prefixed), sampler.batch):
        rows = torch.arange(start, min(start + sampler.batch, len(prefixed)))
        began = time.perf_counter()
        # Copying to the CPU waits for the device.
        batch = sampler.latents(text.rows(rows), negative, [seed + int(row) for row in rows]).cpu()
        seconds += time.perf_counter() - began
        latents.append(batch)
    with torch.inference_mode():
        waves = [
            decode_piece(music.codec, clip[None].to(device_of(music.codec)), settings.piece.loop)[0].cpu()
            for batch in latents
            for clip in batch
        ]
        texts = evaluators.clap.text(list(prompts)).cpu().numpy()
    embeddings = embed_waves(evaluators.clap, waves, music.codec.sample_rate)
    reward = evaluators.reward.score(waves, music.codec.sample_rate, list(prompts))
    every = torch.cat(latents)
    mean, std = music.backbone.latent_mean.cpu(), music.backbone.latent_std.cpu()
    return _Sampled(
        (every - mean) / std,
        seconds / len(prefixed),
        (embeddings * texts).sum(1).astype(np.float64),
        reward.cpu().numpy().astype(np.float64),
    )


def _point(settings: SamplingSettings, clips: _Sampled, reference: _Sampled) -> Point:
    apart = (clips.latents - reference.latents).square().flatten(1).mean(1).sqrt()
    distance = apart / reference.latents.square().flatten(1).mean(1).sqrt()
    return Point(
        settings.solver,
        settings.steps,
        settings.shift,
        evaluations(settings),
        clips.seconds,
        bootstrap_mean(distance.numpy(), 0),
        bootstrap_mean(clips.clap, 0),
        bootstrap_mean(clips.reward, 0),
        paired_difference(clips.clap, reference.clap).difference,
        paired_difference(clips.reward, reference.reward).difference,
    )


COLUMNS = ("solver", "steps", "shift", "evaluations", "s a clip", "distance", "CLAP score", "reward")


def table(compared: Comparison) -> list[list[Any]]:
    """A row of COLUMNS for each point: means with their intervals."""
    return [
        [
            point.solver,
            point.steps,
            f"{point.shift:g}",
            point.evaluations,
            point.seconds,
            _percent(point.distance),
            *(f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in (point.clap, point.reward)),
        ]
        for point in compared.rows
    ]


def _percent(distance: Interval) -> str:
    mean, low, high = (f"{100 * value:.3g}" for value in (distance.mean, distance.low, distance.high))
    return f"{mean} [{low}, {high}] %"


CHARTS = {
    "distance": ("distance", "distance to the reference"),
    "clap": ("clap_gain", "CLAP score over the reference's"),
    "reward": ("reward_gain", "reward over the reference's"),
}
"""What is drawn of a point. Prompts differ far more than solvers do, so clips are compared prompt by prompt."""


def save_charts(compared: Comparison, folder: Path) -> list[Path]:
    """Quality against evaluations for each shift: SVGs of distance, CLAP score and reward, in light and dark."""
    paths = []
    for shift in dict.fromkeys(point.shift for point in compared.points):
        suffix = "" if shift == 1 else f"-shift-{shift:g}"
        ways = [point for point in compared.points if point.shift == shift]
        for name, (field, label) in CHARTS.items():
            path = folder / f"solvers-{name}{suffix}.svg"
            save_chart(_chart(ways, field, label), path)
            paths.append(path)
    return paths


def _chart(points: Sequence[Point], field: str, label: str) -> Callable[[Axes], None]:
    """One quantity against evaluations, a line for each solver; distances by their logarithm."""
    logarithmic = field == "distance"

    def interval(point: Point) -> Interval:
        value: Interval = getattr(point, field)
        if not logarithmic:
            return value
        return Interval(*(float(np.log10(max(part, 1e-9))) for part in (value.mean, value.low, value.high)))

    series = []
    for colour, solver in enumerate(dict.fromkeys(point.solver for point in points), start=1):
        line = sorted((point for point in points if point.solver == solver), key=lambda point: point.evaluations)
        series.append(Series(solver, colour, [float(p.evaluations) for p in line], [interval(p) for p in line]))

    def draw(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        lines(series, "network evaluations a clip")(axes)
        ticks = sorted({x for one in series for x in one.x})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set_ylabel(label)
        if logarithmic:
            low, high = axes.get_ylim()
            decades = np.arange(np.floor(low), np.ceil(high) + 1)
            shown = [d + part for d in decades for part in np.log10([1, 2, 5]) if low <= d + part <= high]
            axes.set_yticks(shown, [f"{100 * 10**value:.2g} %" for value in shown])
        else:
            axes.axhline(0.0, color=LIGHT.faint, linewidth=1.0, linestyle=(0, (4, 3)))

    return draw

"""Distillation to a few evaluations: a student that predicts average velocities (MeanFlow, arXiv 2505.13447).

One evaluation of the student crosses a whole step. It learns the teacher under the recipe's guidance and conditioning
score, and needs neither any more: a step is one pass.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from plaudit.backbone.base import Backbone, initialize
from plaudit.backbone.config import FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.meanaudio import MeanAudio, MeanAudioConfig
from plaudit.errors import RecipeError
from plaudit.flow import Branch, branches, combine, interpolate, time_grid
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Execution, Guidance, SamplingSettings, Steps
from plaudit.settings import MOST, Count, Fraction, Positive
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.storage import save_tensors
from plaudit.training.data import Source, TrainingSet, draw_latents, generator_for, permutation
from plaudit.training.loop import Inputs, Objective
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures


class DistillSettings(StageSettings):
    """A student of average velocities, from the model before under the recipe's `sampling`.

    steps: evaluations that clips of the student take by default. target: "trajectory" (ours), averages over the
    teacher's own trajectories, of which `trajectories` are sampled once for captions of the corpus; "meanflow"
    (published), the teacher's velocity and the student's derivative at noised clips of the corpus.
    Of "meanflow" alone: instantaneous, the fraction of a batch whose interval has no length and which learns the
    teacher's velocity itself; time_mean, time_std: the two times of an interval are sigmoids of normals with these.
    """

    steps: Steps = 4
    target: Literal["trajectory", "meanflow"] = "trajectory"
    trajectories: Count = 4096
    instantaneous: Fraction = 0.75
    time_mean: Annotated[float, Field(ge=-MOST, le=MOST)] = -0.4
    time_std: Positive = 1.0
    train: TrainSettings


def draw_intervals(count: int, settings: DistillSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The times t and end <= t, [count] each, of the intervals of a batch of MeanFlow."""
    times = (settings.time_mean + settings.time_std * torch.randn(2, count, generator=generator)).sigmoid()
    t, end = times.amax(0), times.amin(0)
    equal = torch.randperm(count, generator=generator) < round(settings.instantaneous * count)
    return t, torch.where(equal, t, end)


@dataclass(frozen=True)
class GuidedTeacher:
    """The frozen teacher's velocity under the recipe's guidance and score."""

    network: Backbone
    guidance: Guidance
    score: float | None
    negative: TextFeatures

    @torch.no_grad()
    def velocity(self, latents: Tensor, text: TextFeatures, t: Tensor) -> Tensor:
        """Guided velocity [B, N, C] at `latents` [B, N, C] and times t [B]."""
        passes = branches(self.guidance, scored=self.score is not None)
        negative = self.negative.to(latents.device).rows(torch.zeros(len(t), dtype=torch.long))
        texts: dict[Branch, TextFeatures] = {"conditional": text, "text": text, "negative": negative}
        features = [texts[branch] for branch in passes]
        joined = TextFeatures(torch.cat([f.tokens for f in features]), torch.cat([f.pooled for f in features]))
        scores = None
        if self.score is not None:
            values = [self.score if branch == "conditional" else torch.nan for branch in passes]
            scores = torch.tensor(values, device=t.device).repeat_interleave(len(t))
        rows = self.network.conditions(joined, scores)
        predicted = self.network.velocity(latents, rows, t.repeat(len(passes)))
        velocities = dict(zip(passes, predicted.float().chunk(len(passes)), strict=True))
        return combine(self.guidance, velocities, latents, t)


@dataclass(frozen=True)
class MeanFlowObjective:
    """MeanFlow's loss. student: the network in training, or another module with the same weights in memory."""

    one_thread: ClassVar[bool] = True
    """PyTorch's forward-mode derivatives have one state for all threads."""

    student: MeanAudio
    teacher: GuidedTeacher
    data: TrainingSet
    settings: DistillSettings

    def draw(self, index: int, part: slice) -> Inputs:
        """Clips, noise and intervals."""
        batch, train = self.settings.train.batch, self.settings.train
        generator, clips = generator_for(train.seed, index), self.data.batch(index, batch, part)
        shape = (batch, *clips.posterior.mean.shape[1:])  # [B, N, C]
        posterior_noise, noise = (torch.randn(shape, generator=generator)[part] for _ in range(2))
        t, end = draw_intervals(batch, self.settings, generator)
        return {
            "posterior_noise": posterior_noise,
            "noise": noise,
            "t": t[part],
            "end": end[part],
            "mean": clips.posterior.mean,
            "std": clips.posterior.std,
            "tokens": clips.text.tokens,
            "pooled": clips.text.pooled,
        }

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """The squared error against the teacher's velocity less (t - end) du/dt, the identity of MeanFlow."""
        t, end = inputs["t"], inputs["end"]
        latents = draw_latents(self.student, inputs["mean"], inputs["std"], inputs["posterior_noise"])
        text = TextFeatures(inputs["tokens"].float(), inputs["pooled"].float())
        x = interpolate(latents, inputs["noise"], t)
        velocity = self.teacher.velocity(x, text, t)
        target = velocity - self._correction(x, velocity, text, t, end)
        return _losses(network(x, text, t, end=end), target)

    @torch.no_grad()
    def _correction(self, x: Tensor, velocity: Tensor, text: TextFeatures, t: Tensor, end: Tensor) -> Tensor:
        """(t - end) du/dt [B, N, C], the total derivative of the student along the teacher's trajectory; zero where
        the interval has no length."""
        correction = torch.zeros_like(velocity)
        rows = (end < t).nonzero()[:, 0]
        if not len(rows):
            return correction
        length = (t - end)[rows].view(-1, 1, 1)
        conditions = self.student.conditions(text.rows(rows))
        end = end[rows]

        def average(x: Tensor, t: Tensor) -> Tensor:
            return self.student.velocity(x, conditions, t, end)

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
            point, direction = (x[rows], t[rows]), (velocity[rows], torch.ones_like(t[rows]))
            derivative = jvp(average, point, direction)[1]
        return correction.index_copy(0, rows, length * derivative.float())


TRAJECTORIES, CHUNK = "trajectories", 32
"""The folder of the teacher's trajectories, and how many are in a file."""


def sample_trajectories(
    settings: DistillSettings, teacher: TextToMusic, inputs: StageInputs, folder: Path
) -> tuple[np.ndarray, list[Path]]:
    """The corpus's row of each trajectory [K], and their files, CHUNK in each; continues an unfinished folder.

    Trajectory k is of caption k of the shuffled corpus, and of seed k.
    """
    source, sampling = inputs.corpus(), inputs.sampling
    order = np.random.default_rng(settings.train.seed).permutation(len(source.rows))
    rows = source.rows[np.resize(order, settings.trajectories)]
    files = [folder / f"{first:08d}.safetensors" for first in range(0, len(rows), CHUNK)]
    sampler = teacher.sampler(sampling, Execution(batch=inputs.sampling_batch))
    negative = teacher.text_encoder.encode([sampling.negative_prompt])
    with inputs.processes.main_process_first(), inputs.progress("trajectories of the teacher") as advance:
        for number, path in enumerate(files):
            advance(min(CHUNK * number, len(rows)), len(rows))
            if path.exists():
                continue
            seeds = range(CHUNK * number, min(CHUNK * (number + 1), len(rows)))
            parts = []
            for first in range(0, len(seeds), sampler.batch):
                part = seeds[first : first + sampler.batch]
                text = source.shards.text(rows[part.start : part.stop])
                states = sampler.trajectories(text, negative, part, sampling.steps // settings.steps)
                parts.append(states.half().cpu())
            save_tensors(path, {"states": torch.cat(parts)})
        advance(len(rows), len(rows))
    return rows, files


@dataclass(frozen=True)
class TrajectoryObjective:
    """The error of average velocities over the teacher's trajectories.

    rows, files: see `sample_trajectories`. times: of the states in a trajectory, from 1 to 0.
    """

    source: Source
    rows: np.ndarray
    files: list[Path]
    times: Sequence[float]
    train: TrainSettings

    def draw(self, index: int, part: slice) -> Inputs:
        """Trajectories, an interval of each that is a step of a uniform grid of 1, 2, 4, ... steps, and both states."""
        batch, count = self.train.batch, len(self.rows)
        epochs, places = np.divmod(np.arange(index * batch, (index + 1) * batch), count)
        members = np.array(
            [permutation((self.train.seed, int(e)), count)[p] for e, p in zip(epochs, places, strict=True)]
        )
        start, stop = draw_steps(batch, len(self.times) - 1, generator_for(self.train.seed, index))
        members, start, stop = members[part], start[part], stop[part]
        states = [self._states(int(k), (a, b)) for k, a, b in zip(members, start.tolist(), stop.tolist(), strict=True)]
        text, times = self.source.shards.text(self.rows[members], torch.float16), torch.tensor(self.times)
        first, last = (torch.stack(states) for states in zip(*states, strict=True))
        ends = {"t": times[start], "end": times[stop]}
        return {"first": first, "last": last, "tokens": text.tokens, "pooled": text.pooled, **ends}

    def _states(self, member: int, steps: tuple[int, int]) -> tuple[Tensor, Tensor]:
        with safe_open(self.files[member // CHUNK], "pt") as file:
            states = file.get_slice("states")
            first, last = (states[member % CHUNK, step] for step in steps)
        return first, last

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """The squared error of the average velocity from the first state to the last."""
        t, end, first = inputs["t"], inputs["end"], inputs["first"].float()
        target = (first - inputs["last"].float()) / (t - end).view(-1, 1, 1)
        text = TextFeatures(inputs["tokens"].float(), inputs["pooled"].float())
        return _losses(network(first, text, t, end=end), target)


def draw_steps(count: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """First and last step, [count] each, of intervals that are a step of a grid of `steps`, `steps` / 2, ... steps, as
    far as these are whole numbers; all steps of all grids alike."""
    lengths = [2**power for power in range(steps.bit_length()) if steps % 2**power == 0]
    intervals = torch.tensor([(at, at + length) for length in lengths for at in range(0, steps, length)])
    drawn = intervals[torch.randint(len(intervals), (count,), generator=generator)]
    return drawn[:, 0], drawn[:, 1]


def _losses(predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Each sample's squared error divided by itself, without a gradient (adaptive weighting), and the plain error."""
    error = (predicted.float() - target).square().flatten(1).mean(1)
    return {"loss": (error / (error.detach() + 1e-3)).mean(), "error": error.mean()}


class Distill(Stage):
    """A model of average velocities, distilled from the model before on the captions of the corpus."""

    Settings = DistillSettings
    uses = ("corpus", "sampling", "training")

    def sampling(self, settings: DistillSettings, before: SamplingSettings) -> SamplingSettings:
        """One evaluation in each of `steps` steps, without guidance and score. RecipeError for a teacher's settings, or
        for adapters, that can't be distilled."""
        name = settings.name or "distill"
        if settings.target == "meanflow" and before.guidance.schedule != "constant":
            raise RecipeError(f"stage {name}: target meanflow takes constant guidance, not {before.guidance.schedule}")
        if settings.target == "trajectory" and before.steps % settings.steps:
            raise RecipeError(
                f"stage {name}: {settings.steps} steps do not divide the teacher's {before.steps}; "
                f"change stages.{name}.steps or sampling.steps"
            )
        if before.trajectory is not None:
            raise RecipeError(f"stage {name} distills one model; leave sampling.trajectory out")
        if settings.train.lora is not None:
            raise RecipeError(f"stage {name} trains the whole network; leave stages.{name}.train.lora out")
        changes = {"steps": settings.steps, "solver": "euler", "score": None, "guidance": Guidance(weight=1.0)}
        return before.model_copy(update=changes)

    def run(self, settings: DistillSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """Train the student."""
        if settings.target == "meanflow" and inputs.loop.strategy == "fsdp" and inputs.processes.many:
            raise RecipeError("target meanflow needs whole weights on every process; set training_loop.strategy=ddp")
        before, sampling, source = inputs.model(), inputs.sampling, inputs.corpus()
        network = before.backbone.requires_grad_(False).eval()
        if not isinstance(network, FluxAudio) or isinstance(network, MeanAudio):
            raise RecipeError(f"stage {settings.name} distills a FluxAudio, not a {type(network).__name__}")
        student = student_of(network, sampling.score)
        model = replace(before, backbone=student)
        model.config = replace(before.config, sampling=self.sampling(settings, sampling))
        objective: Objective
        if settings.target == "trajectory":
            rows, files = sample_trajectories(settings, before, inputs, folder / TRAJECTORIES)
            times = time_grid(settings.steps, sampling.shift)
            objective, frozen = TrajectoryObjective(source, rows, files, times, settings.train), 0
        else:
            negative = before.text_encoder.encode([sampling.negative_prompt])
            teacher = GuidedTeacher(network, sampling.guidance, sampling.score, negative)
            data = TrainingSet([source], settings.train.seed)
            objective, frozen = MeanFlowObjective(shared_copy(student), teacher, data, settings), 2 + DERIVATIVE
        inputs.train(model, objective, settings.train, folder, frozen=frozen)
        if inputs.processes.is_main:
            shutil.rmtree(folder / TRAJECTORIES, ignore_errors=True)
        return model

    def cost(self, settings: DistillSettings, costs: Costs) -> StepCost:
        """The student's updates, and the teacher's trajectories or passes."""
        if settings.target == "meanflow":
            return costs.training(settings.train, frozen=2 + DERIVATIVE)
        training = costs.training(settings.train)
        what = f"{settings.trajectories:,} trajectories sampled, {training.what}"
        return replace(training, what=what, sampling=costs.sampling(settings.trajectories))


DERIVATIVE = 1
"""Forward passes that the derivative costs, at the default fraction of intervals: a quarter of three and a half."""


def student_of(teacher: FluxAudio, score: float | None) -> MeanAudio:
    """A MeanAudio that starts as the teacher under `score`, and as an instantaneous velocity over any interval."""
    config = teacher.config
    sizes = {name: getattr(config, name) for name in FluxAudioConfig.__dataclass_fields__ if name != "kind"}
    fixed = score if config.injection != "none" else None
    student = MeanAudio(MeanAudioConfig(**sizes, fixed_score=fixed))
    initialize(student, seed=0)
    student.load_state_dict(student.state_dict() | teacher.state_dict())
    with torch.no_grad():
        student.get_parameter("end_time.mlp.2.weight").zero_()
    return student.to(teacher.latent_mean.device)


def shared_copy(network: MeanAudio) -> MeanAudio:
    """A module with the same weights in memory, for passes that take no part in compiling, checkpoints and DDP."""
    with torch.device("meta"):
        copied = MeanAudio(network.config)
    copied.load_state_dict(network.state_dict(), assign=True)
    return copied.requires_grad_(False)

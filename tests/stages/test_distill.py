"""Distillation: its intervals, its target, the student's start, and that a student learns its teacher's trajectory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plaudit.backbone.meanaudio import MeanAudio, MeanAudioConfig
from plaudit.errors import ModelError, RecipeError
from plaudit.flow import interpolate
from plaudit.generate.sampling import sample_latents
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.stages.distill import (
    DistillObjective,
    DistillSettings,
    GuidedTeacher,
    draw_intervals,
    shared_copy,
    student_of,
)
from plaudit.training.data import Source, TrainingSet, draw_latents
from plaudit.training.loop import train
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures
from tests.backbone.tiny import inputs, tiny_model, wake
from tests.stages.noise import tiny_shards

SCORE = 1.5


def settings(**changes: object) -> DistillSettings:
    train_settings = {"steps": 60, "learning_rate": 1e-3, "batch": 8, "seed": 4}
    return DistillSettings.model_validate({"train": train_settings} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    shards = tiny_shards(tmp_path_factory.mktemp("distill") / "shards", clips=24)
    return TrainingSet([Source(shards, np.arange(24), np.zeros(24))], seed=1)


def awake_teacher(injection: str = "global_adaln") -> GuidedTeacher:
    network = wake(tiny_model(injection, seed=3)).requires_grad_(False).eval()
    network.final.out.weight.mul_(0.2)  # trajectories then stay among the points of training
    score = None if injection == "none" else SCORE
    _, negative, _ = inputs(1)
    return GuidedTeacher(network, Guidance(weight=3.0), score, negative)


def objective(data: TrainingSet, chosen: DistillSettings, teacher: GuidedTeacher | None = None) -> DistillObjective:
    teacher = teacher or awake_teacher()
    return DistillObjective(student_of(teacher.network, teacher.score), teacher, data, chosen)  # type: ignore[arg-type]


@given(
    count=st.integers(1, 64), steps=st.integers(1, 9), instantaneous=st.floats(0, 1), whole_steps=st.floats(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_intervals_go_towards_the_music_and_as_many_as_asked_have_no_length(
    count: int, steps: int, instantaneous: float, whole_steps: float, seed: int
) -> None:
    chosen = settings(steps=steps, instantaneous=instantaneous, whole_steps=whole_steps)
    t, end = draw_intervals(count, chosen, torch.Generator().manual_seed(seed))
    assert t.shape == end.shape == (count,)
    assert ((end >= 0) & (end <= t) & (t <= 1)).all()
    assert (end == t).sum() == round(instantaneous * count)


def test_whole_steps_are_those_of_sampling() -> None:
    t, end = draw_intervals(4000, settings(instantaneous=0.0, whole_steps=1.0), torch.Generator().manual_seed(0))
    expected = {(1.0, 0.0), (1.0, 0.5), (0.5, 0.0), (1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)}
    assert set(zip(t.tolist(), end.tolist(), strict=True)) == expected
    assert (t - end == 1).float().mean() == pytest.approx(1 / 3, abs=0.03)


def test_published_times_are_sigmoids_of_normals() -> None:
    t, end = draw_intervals(20_000, settings(instantaneous=0.0), torch.Generator().manual_seed(0))
    both = torch.cat([t, end]).logit()
    assert both.mean() == pytest.approx(-0.4, abs=0.02) and both.std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("injection", ["none", "global_adaln", "input_add", "score_token"])
def test_a_student_starts_as_its_teacher_at_the_score(injection: str) -> None:
    teacher = awake_teacher(injection)
    student = student_of(teacher.network, teacher.score)  # type: ignore[arg-type]
    latents, text, t = inputs(3)
    scores = None if injection == "none" else torch.full((3,), SCORE)
    expected = teacher.network(latents, text, t, scores)
    torch.testing.assert_close(student(latents, text, t), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(student(latents, text, t, end=t * 0.2), expected, atol=1e-5, rtol=0)
    if injection != "none":
        with pytest.raises(ModelError, match=r"distilled at score 1\.5 and takes no other; leave the score out"):
            student(latents, text, t, scores)


def test_the_teachers_velocity_is_the_guided_one() -> None:
    teacher = awake_teacher()
    latents, text, t = inputs(3)
    negative = teacher.negative.rows(torch.zeros(3, dtype=torch.long))
    conditional = teacher.network(latents, text, t, torch.full((3,), SCORE))
    expected = 3 * conditional - 2 * teacher.network(latents, negative, t)
    torch.testing.assert_close(teacher.velocity(latents, text, t), expected, atol=1e-5, rtol=1e-5)


class Recorded(torch.nn.Module):
    """A network whose prediction is given, and gives back no gradient but its own."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction = torch.nn.Parameter(prediction)

    def forward(self, x: Tensor, text: TextFeatures, t: Tensor, end: Tensor) -> Tensor:
        return self.prediction


def test_the_target_is_the_velocity_less_the_bend_by_finite_differences(data: TrainingSet) -> None:
    made = objective(data, settings(instantaneous=0.5))
    wake_end_time(made.student)
    batch = made.draw(3, slice(None))
    t, end = batch["t"], batch["end"]
    latents = draw_latents(made.student, batch["mean"], batch["std"], batch["posterior_noise"])
    x = interpolate(latents, batch["noise"], t)
    text = TextFeatures(batch["tokens"].float(), batch["pooled"].float())
    velocity = made.teacher.velocity(x, text, t)
    step = 2e-3
    ahead, behind = (made.student(x + h * velocity, text, t + h, end=end).detach() for h in (step, -step))
    bend = (t - end).view(-1, 1, 1) * (ahead - behind) / (2 * step)
    assert bend[end < t].abs().max() > 0.05  # or the test would pass without a derivative
    zero = Recorded(torch.zeros_like(latents))
    made.loss(zero, batch)["error"].backward()
    target = -zero.prediction.grad * latents.numel() / 2  # type: ignore[operator]
    torch.testing.assert_close(target, velocity - bend, atol=5e-3, rtol=5e-3)


def wake_end_time(student: MeanAudio) -> None:
    """Let the second time matter, as after some training."""
    with torch.no_grad():
        student.end_time.mlp[-1].weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))


def test_samples_weigh_alike_whatever_their_error(data: TrainingSet) -> None:
    made = objective(data, settings(instantaneous=1.0))
    values = made.loss(
        Recorded(torch.full((8, *data.sources[0].shards.posterior(np.array([0])).mean.shape[1:]), 50.0)),
        made.draw(0, slice(None)),
    )
    assert values["error"].item() > 100 and values["loss"].item() == pytest.approx(1.0, abs=1e-3)


def test_a_part_of_a_batch_is_that_part_of_the_whole(data: TrainingSet) -> None:
    made = objective(data, settings(instantaneous=0.5))
    whole, part = made.draw(5, slice(None)), made.draw(5, slice(2, 6))
    assert all(torch.equal(value, whole[name][2:6]) for name, value in part.items())


def test_a_shared_copy_follows_the_weights() -> None:
    student = student_of(awake_teacher().network, SCORE)  # type: ignore[arg-type]
    copied = shared_copy(student)
    with torch.no_grad():
        student.final.out.weight.add_(1.0)
    latents, text, t = inputs(2)
    assert torch.equal(copied(latents, text, t), student(latents, text, t))
    assert not any(p.requires_grad for p in copied.parameters()) and all(p.requires_grad for p in student.parameters())


def test_a_student_learns_to_cross_in_two_steps_what_its_teacher_does_in_many(
    data: TrainingSet, tmp_path: Path
) -> None:
    teacher = awake_teacher()
    plain = {"steps": 150, "learning_rate": 2e-3, "batch": 16, "seed": 4, "decay_at": (0.7, 0.9)}
    chosen = settings(steps=2, instantaneous=0.3, whole_steps=0.5, train=plain)
    student = student_of(teacher.network, SCORE)  # type: ignore[arg-type]
    before = distance_to(teacher, student)
    made = DistillObjective(shared_copy(student), teacher, data, chosen)
    ema = train(student, made, TrainSettings.model_validate(plain), tmp_path, Accelerator(cpu=True), lambda *_: None)
    ema.copy_to(student)
    assert distance_to(teacher, student) < 0.5 * before


def distance_to(teacher: GuidedTeacher, student: MeanAudio) -> float:
    """RMS difference of the student's clips in two steps to the teacher's in 64."""
    noise, text, _ = inputs(16)
    scores = torch.full((16,), SCORE)
    exact = SamplingSettings(steps=64, precision="no", guidance=teacher.guidance)
    few = SamplingSettings(steps=2, precision="no", guidance=Guidance(weight=1.0))
    goal = sample_latents(teacher.network, text, teacher.negative, scores, noise, exact)
    return float((sample_latents(student, text, teacher.negative, None, noise, few) - goal).square().mean().sqrt())


def test_a_solver_that_evaluates_within_a_step_is_refused() -> None:
    student = student_of(awake_teacher().network, SCORE)  # type: ignore[arg-type]
    noise, text, _ = inputs(2)
    heun = SamplingSettings(steps=2, solver="heun", precision="no", guidance=Guidance(weight=1.0))
    with pytest.raises(RecipeError, match="a model of average velocities is sampled with solver euler, not heun"):
        sample_latents(student, text, text.rows(torch.tensor([0])), None, noise, heun)


@pytest.mark.parametrize(
    ("fixed", "why"), [("x", "must be a number"), (float("nan"), "must be a number"), (True, "number")]
)
def test_a_bad_fixed_score_is_one_line(fixed: object, why: str) -> None:
    config = tiny_model("global_adaln").config.to_dict() | {"kind": "meanaudio", "fixed_score": fixed}
    with pytest.raises(ModelError, match=why):
        MeanAudioConfig.from_dict(config)


def test_a_fixed_score_without_an_injection_is_refused() -> None:
    config = tiny_model("none").config.to_dict() | {"kind": "meanaudio", "fixed_score": 1.0}
    with pytest.raises(ModelError, match="needs an injection"):
        MeanAudioConfig.from_dict(config)

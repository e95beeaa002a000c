"""Distillation: its intervals, its target, the student's start, and that a student learns its teacher's trajectory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import plaudit
from plaudit.backbone.meanaudio import MeanAudio, MeanAudioConfig
from plaudit.corpus.shards import encode_corpus
from plaudit.errors import ModelError, RecipeError
from plaudit.flow import interpolate
from plaudit.generate.model import TextToMusic
from plaudit.generate.sampling import Sampler, initial_noise, sample_latents
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.stages.distill import (
    DistillSettings,
    GuidedTeacher,
    MeanFlowObjective,
    TrajectoryObjective,
    draw_intervals,
    draw_steps,
    sample_trajectories,
    shared_copy,
    student_of,
)
from plaudit.storage import load_tensors, save_tensors
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.training.data import Source, TrainingSet, draw_latents
from plaudit.training.loop import Objective, train
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


def objective(data: TrainingSet, chosen: DistillSettings, teacher: GuidedTeacher | None = None) -> MeanFlowObjective:
    teacher = teacher or awake_teacher()
    return MeanFlowObjective(student_of(teacher.network, teacher.score), teacher, data, chosen)  # type: ignore[arg-type]


@given(count=st.integers(1, 64), instantaneous=st.floats(0, 1), seed=st.integers(0, 99))
def test_intervals_go_towards_the_music_and_the_stated_fraction_has_no_length(
    count: int, instantaneous: float, seed: int
) -> None:
    t, end = draw_intervals(count, settings(instantaneous=instantaneous), torch.Generator().manual_seed(seed))
    assert t.shape == end.shape == (count,)
    assert ((end >= 0) & (end <= t) & (t <= 1)).all()
    assert (end == t).sum() == round(instantaneous * count)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (4, {(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)}),
        (3, {(0, 1), (1, 2), (2, 3)}),
        (6, {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (0, 2), (2, 4), (4, 6)}),
        (1, {(0, 1)}),
    ],
)
def test_intervals_of_trajectories_are_steps_of_sampling(steps: int, expected: set[tuple[int, int]]) -> None:
    start, stop = draw_steps(2000, steps, torch.Generator().manual_seed(0))
    drawn = list(zip(start.tolist(), stop.tolist(), strict=True))
    assert set(drawn) == expected
    assert all(drawn.count(one) > 0.7 * 2000 / len(expected) for one in expected)


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
    distillation = objective(data, settings(instantaneous=0.5))
    wake_end_time(distillation.student)
    batch = distillation.draw(3, slice(None))
    t, end = batch["t"], batch["end"]
    latents = draw_latents(distillation.student, batch["mean"], batch["std"], batch["posterior_noise"])
    x = interpolate(latents, batch["noise"], t)
    text = TextFeatures(batch["tokens"].float(), batch["pooled"].float())
    velocity = distillation.teacher.velocity(x, text, t)
    step = 2e-3
    ahead, behind = (distillation.student(x + h * velocity, text, t + h, end=end).detach() for h in (step, -step))
    bend = (t - end).view(-1, 1, 1) * (ahead - behind) / (2 * step)
    assert bend[end < t].abs().max() > 0.05  # or the test would pass without a derivative
    zero = Recorded(torch.zeros_like(latents))
    distillation.loss(zero, batch)["error"].backward()
    target = -zero.prediction.grad * latents.numel() / 2  # type: ignore[operator]
    torch.testing.assert_close(target, velocity - bend, atol=5e-3, rtol=5e-3)


def wake_end_time(student: MeanAudio) -> None:
    """Let the second time matter, as after some training."""
    with torch.no_grad():
        student.end_time.mlp[-1].weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))


def test_samples_weigh_alike_whatever_their_error(data: TrainingSet) -> None:
    distillation = objective(data, settings(instantaneous=1.0))
    values = distillation.loss(
        Recorded(torch.full((8, *data.sources[0].shards.posterior(np.array([0])).mean.shape[1:]), 50.0)),
        distillation.draw(0, slice(None)),
    )
    assert values["error"].item() > 100 and values["loss"].item() == pytest.approx(1.0, abs=1e-3)


def test_a_part_of_a_batch_is_that_part_of_the_whole(data: TrainingSet) -> None:
    distillation = objective(data, settings(instantaneous=0.5))
    whole, part = distillation.draw(5, slice(None)), distillation.draw(5, slice(2, 6))
    assert all(torch.equal(value, whole[name][2:6]) for name, value in part.items())


def test_a_shared_copy_follows_the_weights() -> None:
    student = student_of(awake_teacher().network, SCORE)  # type: ignore[arg-type]
    copied = shared_copy(student)
    with torch.no_grad():
        student.final.out.weight.add_(1.0)
    latents, text, t = inputs(2)
    assert torch.equal(copied(latents, text, t), student(latents, text, t))
    assert not any(p.requires_grad for p in copied.parameters()) and all(p.requires_grad for p in student.parameters())


def test_meanflow_brings_the_student_nearer_to_its_teacher(data: TrainingSet, tmp_path: Path) -> None:
    student, objective = meanflow(data)
    assert fitted(student, objective, tmp_path) < 0.9


def test_meanflow_is_the_same_where_training_has_two_threads(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward-mode derivatives have one state for all threads, so one thread computes whole batches."""
    weights = []
    for threads in (1, 2):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
        student, objective = meanflow(data)
        few = TrainSettings(steps=3, learning_rate=3e-3, batch=8, seed=4)
        train(student, objective, few, tmp_path / str(threads), Accelerator(cpu=True), lambda *_: None)
        weights.append(student.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4)


def meanflow(data: TrainingSet) -> tuple[MeanAudio, MeanFlowObjective]:
    teacher, student = awake_teacher(), student_of(awake_teacher().network, SCORE)  # type: ignore[arg-type]
    chosen = settings(steps=2, target="meanflow", instantaneous=0.3)
    return student, MeanFlowObjective(shared_copy(student), teacher, data, chosen)


def fitted(student: MeanAudio, objective: Objective, folder: Path) -> float:
    """The student's distance to its teacher after training, relative to that before."""
    teacher, before = awake_teacher(), distance_to(awake_teacher(), student)
    plain = TrainSettings(steps=60, learning_rate=3e-3, batch=8, seed=4, decay_at=(0.6, 0.8))
    train(student, objective, plain, folder, Accelerator(cpu=True), lambda *_: None).copy_to(student)
    return distance_to(teacher, student) / before


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


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextToMusic, SimpleNamespace]:
    """The shipped base model, and the inputs of a stage with six clips of a second."""
    model = plaudit.load("synthetic-base", "cpu")
    clips = SyntheticCorpus(6, 1.0, 5)
    shards = encode_corpus(clips, model.codec, model.text_encoder, tmp_path_factory.mktemp("music"), 1.0)
    model.config = replace(model.config, seconds=1.0)
    sampling = SamplingSettings(steps=4, precision="no", guidance=Guidance(weight=3.0))
    one_process = SimpleNamespace(main_process_first=nullcontext)
    inputs = SimpleNamespace(
        corpus=lambda: Source(shards, np.arange(6), np.zeros(6)), sampling=sampling, sampling_batch=5,
        processes=one_process, progress=lambda label: nullcontext(lambda done, total: None),
    )  # fmt: skip
    return model, inputs


def test_trajectories_are_the_teachers_and_continue_after_a_kill(
    music: tuple[TextToMusic, SimpleNamespace], tmp_path: Path
) -> None:
    model, inputs = music
    chosen = settings(steps=2, trajectories=34)
    rows, files = sample_trajectories(chosen, model, inputs, tmp_path)  # type: ignore[arg-type]
    states = torch.cat([load_tensors(path)["states"] for path in files])
    assert len(rows) == 34 and states.shape == (34, 3, 15, 40) and sorted(set(rows.tolist())) == list(range(6))
    negative = model.text_encoder.encode([inputs.sampling.negative_prompt])
    sampler = model.sampler(inputs.sampling)
    text = inputs.corpus().shards.text(rows[7:9])
    torch.testing.assert_close(states[7:9, 0].float(), initial_noise([7, 8], 15, 40), atol=2e-3, rtol=1e-3)
    latents = model.backbone.standardize(sampler.latents(text, negative, [7, 8]))
    torch.testing.assert_close(states[7:9, 2].float(), latents, atol=4e-3, rtol=1e-3)

    kept, lost = (path.read_bytes() for path in files)
    files[1].unlink()
    (tmp_path / files[0].name).touch()
    written = files[0].stat().st_mtime_ns
    sample_trajectories(chosen, model, inputs, tmp_path)  # type: ignore[arg-type]
    assert files[0].stat().st_mtime_ns == written and files[0].read_bytes() == kept and files[1].read_bytes() == lost


def test_trajectories_bring_the_student_nearer_to_its_teacher(tmp_path: Path) -> None:
    teacher = awake_teacher()
    student = student_of(teacher.network, SCORE)  # type: ignore[arg-type]
    _, text, _ = inputs(64, seed=1)
    exact = SamplingSettings(steps=64, precision="no", guidance=teacher.guidance, score=SCORE)
    sampler = Sampler(teacher.network, exact, 11, 64, compiled=False)
    states = sampler.trajectories(text, teacher.negative, range(64), every=32)
    save_tensors(tmp_path / "0.safetensors", {"states": states[:32].half()})
    save_tensors(tmp_path / "1.safetensors", {"states": states[32:].half()})
    source = SimpleNamespace(shards=SimpleNamespace(text=lambda rows, dtype: text.rows(torch.as_tensor(rows))))
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    train_settings = TrainSettings(steps=60, learning_rate=3e-3, batch=8, seed=4)
    objective = TrajectoryObjective(source, np.arange(64), files, [1.0, 0.5, 0.0], train_settings)  # type: ignore[arg-type]
    whole, part = objective.draw(5, slice(None)), objective.draw(5, slice(2, 6))
    assert all(torch.equal(value, whole[name][2:6]) for name, value in part.items())
    where = {tuple(state[0, :3].tolist()): (k, s) for k, one in enumerate(states.half()) for s, state in enumerate(one)}
    for first, last, t, end in zip(whole["first"], whole["last"], whole["t"], whole["end"], strict=True):
        (k, start), (other, stop) = (where[tuple(state[0, :3].tolist())] for state in (first, last))
        assert k == other and start < stop and (t.item(), end.item()) == (1 - start / 2, 1 - stop / 2)
    assert fitted(student, objective, tmp_path / "training") < 0.9

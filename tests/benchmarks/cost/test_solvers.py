"""`python -m benchmarks.cost solvers`: known answers of its figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.cost.__main__ import app
from benchmarks.cost.solvers import COLUMNS, Evaluators, SolverGrid, bench_solvers, evaluations, save_charts, table
from plaudit.errors import PromptError, RecipeError
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from tests.generate.tiny import tiny_music

GRID = SolverGrid(steps=(2, 4, 8), reference_steps=64)


class LoudnessCLAP:
    """Embeds where in a clip its loudest samples are; every prompt has the same embedding."""

    name, sample_rate, dim = "loudness", 50, 5

    def audio(self, wave: Tensor) -> Tensor:
        folded = wave.unflatten(1, (5, -1)).square().mean(2).sqrt()
        return folded / folded.norm(dim=1, keepdim=True)

    def text(self, prompts: list[str]) -> Tensor:
        return torch.full((len(prompts), 5), 5**-0.5)


class Loud:
    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.square().mean() for wave in waves])


EVALUATORS = Evaluators(LoudnessCLAP(), Loud())


def music(**changes: object) -> TextToMusic:
    model = tiny_music()
    sampling = SamplingSettings(score=1.0, precision="no", guidance=Guidance(weight=2.0)).changed(**changes)
    return replace(model, config=replace(model.config, sampling=sampling))


def test_evaluations_count_every_branch_of_every_step() -> None:
    half = Guidance(weight=3.0, schedule="interval", start=0.0, stop=0.5)
    for solver, each in (("euler", 1), ("ab2", 1), ("heun", 2), ("midpoint", 2)):
        settings = SamplingSettings(steps=8, solver=solver)  # type: ignore[arg-type]
        assert evaluations(settings) == 16 * each
        assert evaluations(settings.changed(guidance=half)) == 12 * each
        assert evaluations(settings.changed(weight=1.0)) == 8 * each


def test_more_steps_come_nearer_and_orders_tell() -> None:
    reports: list[tuple[int, int]] = []
    two, progress = Execution(batch=2), lambda done, total: reports.append((done, total))
    compared = bench_solvers(music(), list("abc"), EVALUATORS, GRID, two, progress)
    (reference,) = compared.references
    assert reference.distance.mean == 0 and reference.steps == 64 and reference.reward_gain.mean == 0
    by = {(point.solver, point.steps): point for point in compared.points}
    assert len(by) == len(GRID.solvers) * len(GRID.steps) and reports[-1][0] == reports[-1][1]
    for solver in GRID.solvers:
        distances = [by[solver, steps].distance.mean for steps in GRID.steps]
        assert distances == sorted(distances, reverse=True) and distances[-1] > 0
        assert by[solver, 8].distance.low <= distances[-1] <= by[solver, 8].distance.high
    assert by["heun", 8].distance.mean < by["euler", 8].distance.mean
    nearer = [abs(by["midpoint", steps].reward_gain.mean) for steps in (2, 8)]
    assert nearer[1] < nearer[0]
    assert all(len(row) == len(COLUMNS) for row in table(compared))


def test_one_reference_serves_all_shifts_unless_guidance_follows_the_steps() -> None:
    grid = SolverGrid(solvers=("euler",), steps=(32,), shifts=(1.0, 3.0), reference_steps=64)
    compared = bench_solvers(music(), ["a", "b"], EVALUATORS, grid)
    assert [reference.shift for reference in compared.references] == [1.0]
    assert [point.shift for point in compared.points] == [1.0, 3.0]
    assert all(point.distance.mean < 0.05 for point in compared.points)
    linear = music(guidance=Guidance(weight=2.0, schedule="linear"))
    compared = bench_solvers(linear, ["a", "b"], EVALUATORS, grid)
    assert [reference.shift for reference in compared.references] == [1.0, 3.0]
    assert all(point.distance.mean < 0.05 for point in compared.points)


def test_charts_are_drawn_for_each_shift(tmp_path: Path) -> None:
    grid = SolverGrid(solvers=("euler", "ab2"), steps=(1, 2), shifts=(1.0, 3.0), reference_steps=4)
    charts = save_charts(bench_solvers(music(), ["a", "b"], EVALUATORS, grid), tmp_path)
    assert [path.name for path in charts] == [
        f"solvers-{name}{shift}.svg" for shift in ("", "-shift-3") for name in ("distance", "clap", "reward")
    ]
    for path in charts:
        assert "</svg>" in path.read_text() and path.with_name(f"{path.stem}-dark.svg").exists()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(PromptError, match="at least two prompts"):
        bench_solvers(music(), ["a"], EVALUATORS, GRID)
    for values in ({"solvers": ["rk45"]}, {"steps": [0]}, {"shifts": [0.0]}):
        with pytest.raises(RecipeError, match="solvers to compare"):
            SolverGrid.chosen(**values)


def test_the_command_prints_and_writes_its_figures(tmp_path: Path) -> None:
    words = ["solvers", "-n", "2", "--solver", "euler", "--solver", "ab2", "--steps", "1", "--steps", "2"]
    done = CliRunner().invoke(app, [*words, "--reference-steps", "2", "-o", str(tmp_path), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / "solvers.json").read_text())
    assert len(figures["points"]) == 4 and len(figures["references"]) == 1 and len(figures["prompts"]) == 2
    assert (tmp_path / "solvers-distance.svg").exists()

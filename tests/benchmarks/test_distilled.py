"""The benchmark of distilled models: its comparison on known differences, and a whole run at small size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import benchmarks.distilled as module
import plaudit
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.generate.model import save_model
from plaudit.generate.settings import Guidance
from plaudit.stages.distill import student_of


@pytest.mark.parametrize(("shift", "equivalent"), [(0.0, True), (0.03, True), (0.2, False), (-0.2, False)])
def test_differences_are_in_the_teachers_standard_deviations(shift: float, equivalent: bool) -> None:
    teacher = np.random.default_rng(0).normal(5.0, 3.0, 2000)
    noise = np.random.default_rng(1).normal(0.0, 0.5, 2000)
    result = module.compare(teacher + 3.0 * shift + noise - noise.mean(), teacher)
    assert result["difference"] == pytest.approx(shift * 3.0 / teacher.std(ddof=1), abs=1e-6)
    assert result["equivalent"] is equivalent and result["low"] < result["difference"] < result["high"]


def test_a_student_that_is_its_teacher_is_equivalent() -> None:
    teacher = np.arange(8.0)
    assert module.compare(teacher, teacher)["equivalent"]


def test_it_prints_every_figure(tmp_path: Path) -> None:
    teacher = plaudit.load("synthetic-base", "cpu")
    assert isinstance(teacher.backbone, FluxAudio)
    changes = {"steps": 4, "guidance": Guidance(weight=1.0), "solver": "euler"}
    sampling = teacher.config.sampling.model_copy(update=changes)
    config = replace(teacher.config, seconds=3.0, sampling=sampling)
    save_model(tmp_path / "teacher", replace(teacher, config=config))
    backbone = student_of(teacher.backbone, None)
    config = replace(config, backbone=backbone.config)
    save_model(tmp_path / "student", replace(teacher, backbone=backbone, config=config))
    options = ["--teacher", str(tmp_path / "teacher"), "--student", str(tmp_path / "student"), "--steps", "4"]
    options += ["--others", "1", "-n", "3", "--clips", "1", "--turns", "1", "--json"]
    app = module.typer.Typer()
    app.command()(module.main)
    output = CliRunner().invoke(app, options)
    assert output.exit_code == 0, output.output
    results = json.loads(output.stdout)
    assert (results["evaluations"], results["evaluations_of_teacher"]) == (4, 4) and results["equivalent"] is True
    assert results["reward_difference"] == pytest.approx(0.0, abs=0.05)  # as at the start of its training
    assert results["by_steps"]["1"]["evaluations"] == 1 and not results["by_steps"]["1"]["reward"]["equivalent"]
    assert results["speedup"] > 0 and results["processor_seconds_a_clip"] > 0

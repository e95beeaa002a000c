"""The example of a metric goes through evaluation, a recipe's steps, held-out prompts and a comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.errors import EvaluationError
from plaudit.evaluate.comparison import differences_of_values
from plaudit.evaluate.metrics import metric_called
from plaudit.evaluate.values import Values
from plaudit.pipeline.steps import steps
from plaudit.recipe import load_recipe
from tests.evaluate.test_evaluation_setup import FREQUENCIES, SETUP, evaluate, tone
from tests.examples.small import EXAMPLES

NAME = f"{EXAMPLES / 'metric.py'}:BRIGHTNESS"


def test_a_command_measures_it_for_each_clip_and_for_the_set(tmp_path: Path) -> None:
    time = np.arange(16000) / 16000
    for name, pitch in (("low", 500), ("high", 6000)):
        write_wav(tmp_path / "out" / f"{name}.wav", 0.3 * np.sin(2 * np.pi * pitch * time), 16000)
    (tmp_path / "prompts.csv").write_text("id,prompt\nlow,a low tone\nhigh,a high tone\n")
    arguments = ["evaluate", tmp_path / "out", "--prompts", tmp_path / "prompts.csv", "--metric", NAME]
    done = CliRunner().invoke(app, [*map(str, arguments), "-o", str(tmp_path / "e"), "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["metrics"]
    assert row["metric"] == "brightness" and row["value"] == pytest.approx(50.0, abs=0.5) and row["clips"] == 2
    values = Values.read(tmp_path / "e")
    assert values.clip("brightness") == pytest.approx([0.0, 100.0], abs=0.5)
    described = values.described["brightness"]  # so that tables can be read where the file is not
    assert metric_called("brightness", {"brightness": described | {"heading": "B"}}).unit == "%"


def test_a_recipe_names_it_and_its_code_is_part_of_the_step(tmp_path: Path) -> None:
    recipe = load_recipe("smoke", [f"evaluate.metrics=[{NAME}]"])
    step = next(step for step in steps(recipe) if step.name == "values-sft")
    assert f"metric {NAME}" in step.external
    with pytest.raises(EvaluationError, match="no file"):
        steps(load_recipe("smoke", ["evaluate.metrics=['nowhere.py:METRIC']"]))


def test_it_is_compared_like_any_other(tmp_path: Path) -> None:
    setup = replace(SETUP, metrics=(NAME,))
    low = evaluate(tmp_path, [tone(f) for f in FREQUENCIES], setup)
    high = evaluate(tmp_path, [tone(f) + 0.1 * tone(3900 + f / 100) for f in FREQUENCIES], setup, system="b")
    assert "brightness" in low.clip_metrics
    assert {row.metric for row in differences_of_values(low, high)} == {"reward", "clap", "brightness", "frechet"}

"""The last lines of `plaudit run` and `plaudit report`."""

import json
from pathlib import Path

import pytest

from plaudit.cli.console import as_invoked
from plaudit.cli.run import _say
from plaudit.evaluate.pages.report import write_report
from tests.evaluate.report_example import example


def test_the_recommended_model_and_then_regressions_under_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    folder = write_report(example(tmp_path / "clips", prompts=8, players=0), tmp_path / "report").parent
    numbers = json.loads((folder / "report.json").read_text())
    regression, use = numbers["regression_finding"], numbers["recommended"]
    _say(folder, json=False)
    report, model, last = capsys.readouterr().out.splitlines()
    assert (report, last) == (f"Report: {folder / 'index.html'}", regression)
    assert model == f"Use the model of {use['title']}: {as_invoked(use['command'])}"
    _say(folder, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "report": str(folder / "index.html"), "regression": regression, "model": use["key"], "command": use["command"],
    }  # fmt: skip
    _say(tmp_path / "sft", json=False)  # a single step has no findings
    assert capsys.readouterr().out.splitlines() == [f"Sft: {tmp_path / 'sft'}"]

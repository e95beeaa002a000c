"""Errors of the command line: one line, and a non-zero exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import plaudit.cli.main
from plaudit.errors import RecipeError
from tests.cli.command import plaudit as run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.yaml"), "no recipe 'nowhere.yaml'"),
        (("run", "smoke", "--set", "stages.crpo.betta=1"), "did you mean beta?"),
        (("report", "nowhere"), "not a run folder"),
        (("generate", "   ", "-o", "out"), "the prompt is empty"),
        (("generate", "piano", "--model", "nowhere"), "no model 'nowhere'"),
        (("score", "nowhere.wav", "--reward", "nowhere"), "no reward 'nowhere'"),
        (("models", "import", "nowhere", "--from", "nowhere"), "no released model 'nowhere'"),
        (("models", "import", "mert-330m", "--from", "nowhere"), "nowhere has no pytorch_model.bin"),
        (("models", "inspect", "nowhere"), "no model 'nowhere'"),
        (("votes", "import", "nowhere", ".", "-o", "out"), "no source of votes 'nowhere'"),
        (("votes", "import", "aime", "nowhere", "-o", "out"), "nowhere is not a folder"),
        (("votes", "check", "nowhere.csv"), "nowhere.csv does not exist"),
        (("reward", "calibrate", "nowhere.csv"), "nowhere.csv does not exist"),
        (("compare", "nowhere.csv", "nowhere"), "nowhere.csv does not exist"),
        (("evaluate", "nowhere.csv", "--reference", "nowhere"), "nowhere"),
    ],
)
def test_one_line_and_exit_code_1(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.code == 1
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [("generate",), ("frobnicate",), ("generate", "x", "-n", "0")])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).code == 2


def test_debug_shows_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plaudit.cli.main, "debug", False)  # what the command sets is taken back
    with pytest.raises(RecipeError, match="no recipe"):
        run("--debug", "run", "nowhere.yaml")


def test_bad_audio_is_named_and_the_rest_is_scored(tmp_path: Path) -> None:
    time = np.arange(32000) / 16000
    soundfile.write(tmp_path / "good.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "empty.wav").write_bytes(b"")
    done = run("score", str(tmp_path), "--prompt", "a tone", "--json", "--no-cache")
    assert done.code == 1
    rows = {Path(row["file"]).name: row for row in json.loads(done.out)}
    assert "silent" in rows["silent.wav"]["error"] and "empty" in rows["empty.wav"]["error"]
    assert rows["good.wav"]["error"] is None
    assert run("score", str(tmp_path / "good.wav"), "--no-cache").code == 0


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "run",
        "generate",
        "score",
        "rank",
        "evaluate",
        "report",
        "models fetch",
        "models verify",
        "models export",
        "models push",
        "votes import",
        "votes check",
        "reward train",
        "reward evaluate",
        "reward ablate",
        "reward probe",
        "reward calibrate",
        "sweep score",
        "sweep injections",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.code == 0 and "Example: plaudit" in done.out

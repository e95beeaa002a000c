"""What the command line says when something is wrong: one line, and an exit code that isn't zero."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile


def plaudit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "plaudit", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.yaml"), "no recipe 'nowhere.yaml'"),
        (("run", "smoke", "--set", "stages.crpo.betta=1"), "did you mean beta?"),
        (("report", "nowhere"), "not a run folder"),
        (("generate", "   ", "-o", "out"), "the prompt is empty"),
        (("generate", "piano", "--model", "nowhere"), "no model 'nowhere'"),
        (("score", "nowhere.wav", "--reward", "nowhere"), "no model 'nowhere'"),
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
    done = plaudit(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [("generate",), ("frobnicate",), ("generate", "x", "-n", "0")])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert plaudit(*arguments).returncode == 2


def test_debug_shows_the_trace() -> None:
    done = plaudit("--debug", "run", "nowhere.yaml")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_bad_audio_is_named_and_the_rest_is_scored(tmp_path: Path) -> None:
    time = np.arange(32000) / 16000
    soundfile.write(tmp_path / "good.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "empty.wav").write_bytes(b"")
    done = plaudit("score", str(tmp_path), "--prompt", "a tone", "--json", "--no-cache")
    assert done.returncode == 1
    rows = {Path(row["file"]).name: row for row in json.loads(done.stdout)}
    assert "silent" in rows["silent.wav"]["error"] and "empty" in rows["empty.wav"]["error"]
    assert rows["good.wav"]["error"] is None
    assert plaudit("score", str(tmp_path / "good.wav"), "--no-cache").returncode == 0


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
    done = plaudit(*command.split(), "--help")
    assert done.returncode == 0 and "Example: plaudit" in done.stdout

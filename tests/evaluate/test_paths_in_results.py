"""Paths in results hold wherever the shell is that reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.evaluate.evaluation import Evaluation
from plaudit.evaluate.prompt_matching import PromptClip
from plaudit.evaluate.systems import systems_in
from plaudit.evaluate.values import Values
from plaudit.files import path_in


def files_of(table: Path, column: str = "file") -> list[str]:
    with table.open(newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def test_a_file_in_or_beside_the_folder_is_relative_and_any_other_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_in(Path("results"), "results/deep/a.wav") == "deep/a.wav"
    assert path_in(Path("results"), Path("out/a.wav")) == "../out/a.wav"
    assert path_in(Path("results"), "../a.wav") == str(tmp_path.resolve().parent / "a.wav")
    (tmp_path / "results").mkdir()
    (tmp_path / "link").symlink_to("results")
    assert path_in(Path("results"), "link/a.wav") == "a.wav"


def test_an_evaluation_names_its_files_for_every_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clips = [PromptClip("1", "p", Path("evaluation/a.wav")), PromptClip("2", "q", Path("out/b.wav"))]
    clips.append(PromptClip("3", "r", None, "it has no file"))
    rows = [
        {"metric": "reward", "prompt_id": clip.id, "prompt": clip.prompt, "file": str(clip.file or ""),
         "value": None if clip.error else 1.0}
        for clip in clips
    ]  # fmt: skip
    Evaluation(Values.of_rows(rows), clips, [], {}).save(Path("evaluation"))
    names = ["a.wav", "../out/b.wav", ""]
    assert files_of(tmp_path / "evaluation" / "clips.csv") == names
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert [row["file"] for row in summary["rows"]] == names
    monkeypatch.chdir("/")
    (system,) = systems_in(str(tmp_path / "evaluation"))
    files = [clip.file.resolve() for clip in system.clips if clip.file is not None]
    assert files == [tmp_path.resolve() / "evaluation" / "a.wav", tmp_path.resolve() / "out" / "b.wav"]


def test_a_table_of_scores_can_be_read_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        wave = np.random.default_rng(number).normal(0, 0.1, 48000).astype(np.float32)
        write_wav(tmp_path / "music" / f"{number}.wav", wave, 16000)
    for command in (["score", "music"], ["rank", "music", "--copy", "best"]):
        assert CliRunner().invoke(app, [*command, "--csv", f"tables/{command[0]}.csv"]).exit_code == 0
        printed = CliRunner().invoke(app, [*command[:2], "--csv", "-"]).stdout
        assert ",music/" in printed or "\nmusic/" in printed
    assert files_of(tmp_path / "tables" / "score.csv") == ["../music/0.wav", "../music/1.wav"]
    assert (tmp_path / "tables" / files_of(tmp_path / "tables" / "rank.csv", "copy")[0]).is_file()
    monkeypatch.chdir("/")
    again = CliRunner().invoke(app, ["score", "--table", str(tmp_path / "tables" / "score.csv"), "--json"])
    assert again.exit_code == 0 and [row["error"] for row in json.loads(again.stdout)] == [None, None]

"""Runs as systems of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.errors import EvaluationError
from plaudit.evaluate.comparison import pair
from plaudit.evaluate.systems import read_systems
from plaudit.evaluate.values import VALUES
from plaudit.pipeline.run_systems import systems_at
from plaudit.recipe import load_recipe
from tests.evaluate.report_example import RATE, clip, values

FOLDER = ["corpus.folder=music", "corpus.table=music.csv"]


def a_run(folder: Path, lifts: dict[str, float], *changes: str, prompts: int = 8) -> Path:
    """A run of the folder recipe, as far as a comparison reads it: values and clips of its stages."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(load_recipe("folder", [*FOLDER, *changes]).to_yaml())
    for stage, lift in lifts.items():
        rng = np.random.default_rng([*folder.name.encode(), *stage.encode()])
        values(rng, prompts, lift, system=stage).write(folder / f"values-{stage}" / VALUES)
        for row in range(prompts):
            write_wav(folder / f"clips-{stage}" / f"{row:04d}.wav", clip(row, 0.2), RATE)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return a_run(folder / "one", {"sft": 0.0, "crpo": 0.2}), a_run(folder / "two", {"sft": 0.1, "crpo": 1.2})


def test_runs_are_compared_by_their_last_stages(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, runs), "-o", str(tmp_path / "page"), "--players", "2"])
    assert done.exit_code == 0, done.exception
    found = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert found["systems"] == ["one:crpo", "two:crpo"] and found["prompts"] == 8
    reward = next(row for row in found["comparisons"] if row["metric"] == "reward")
    assert reward["difference"]["mean"] == pytest.approx(1.0, abs=0.4) and reward["verdict"] == "better"
    assert (tmp_path / "page" / "index.html").read_text().count("<audio") == 4


def test_a_stage_is_named_after_a_colon(runs: tuple[Path, Path]) -> None:
    one, two = runs
    systems = read_systems([f"{one}:sft", str(two), f"{two}:sft"], systems_at)
    assert [system.name for system in systems] == ["one:sft", "two:crpo", "two:sft"]
    assert [clip.id for clip in systems[0].clips] == [f"{row:04d}" for row in range(8)]
    assert all(clip.file is not None and clip.file.is_file() for clip in systems[0].clips)
    assert "concepts" not in systems[0].clips[5].values  # its prompt names none
    assert pair(systems).metrics == ["reward", "clap", "concepts", "utility"]


def test_a_stage_without_values_lists_those_with_values(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for selector, said in {
        f"{runs[0]}:nft": "has no stage 'nft'; it has unscored, sft, expert_iteration, cross_load, crpo, finished",
        f"{runs[0]}:cross_load": f"has no values of its stage cross_load yet; compare {runs[0]}:crpo, or continue",
        str(a_run(tmp_path / "new", {})): "has no values of its stage crpo yet; continue it with plaudit run",
        str(tmp_path): r"has no values\.parquet",
        f"{tmp_path}/gone:sft": "does not exist",
    }.items():
        with pytest.raises(Exception, match=said):
            systems_at(selector)


def test_runs_whose_rewards_differ_are_not_compared_by_reward(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = a_run(tmp_path / "other", {"crpo": 0.5}, "reward.name=synthetic-clap")
    systems = read_systems([str(runs[0]), str(other)], systems_at)
    pairing = pair(systems)
    assert pairing.metrics == ["clap", "concepts", "utility"]
    assert pairing.notes[0].startswith("reward is of different models")
    with pytest.raises(EvaluationError, match="reward is of different models"):
        pair(systems, ["reward"])


def test_runs_with_the_same_name_are_labelled_by_path(runs: tuple[Path, Path], tmp_path: Path) -> None:
    again = a_run(tmp_path / "one", {"crpo": 0.5})
    names = [system.name for system in read_systems([str(runs[0]), str(again)], systems_at)]
    assert names == [f"{runs[0]}:crpo", f"{again}:crpo"]

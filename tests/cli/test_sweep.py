"""`plaudit sweep`: real cells of the shipped model, resumption after a kill, and errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from plaudit.cli.main import app
from plaudit.errors import PlauditError
from plaudit.loading import MODELS
from plaudit.recipe import load_recipe
from plaudit.storage import read_json, write_json

SMALL = ("-n", "2", "--steps", "1", "--reference-clips", "4", "--score", "0", "--score", "2")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "plaudit", "sweep", *map(str, arguments)]


def contents(folder: Path) -> dict[str, bytes]:
    hidden = (".lock", ".pid", "run.json")
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in hidden
    }


def sweep(*arguments: str | Path) -> None:
    """The command in this process, which need not load PyTorch again."""
    app(["sweep", *map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sweep of two models."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    sweep("score", "a=synthetic", "b=synthetic", *SMALL, "-o", folder)
    return folder


def test_a_sweep_over_scores_leaves_cells_numbers_and_figures(swept: Path) -> None:
    assert sorted(path.name for path in (swept / "a").iterdir()) == ["score-0", "score-2"]
    numbers = read_json(swept / "sweep.json")
    first, second = numbers["models"]
    assert first["scores"] == [0.0, 2.0] and first["clips"] == 2
    assert {k: v for k, v in first.items() if k != "stage"} == {k: v for k, v in second.items() if k != "stage"}
    assert {"utility", "concepts"} <= first["means"].keys()
    assert numbers["settings"]["sampling"]["a"]["steps"] == 1 and len(numbers["settings"]["prompts"]) == 2
    for name in ("index.html", "sweep.csv", "sweep.svg", "sweep-dark.svg"):
        assert (swept / name).stat().st_size > 0


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(swept: Path, tmp_path: Path) -> None:
    command_line = ("score", "a=synthetic", "b=synthetic", *SMALL, "-o", tmp_path / "out")
    process = subprocess.Popen(command(*command_line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (tmp_path / "out" / "a" / "score-0").exists():  # a cell is there, others are not
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "b" / "score-2").exists()
    sweep(*command_line)
    assert contents(tmp_path / "out") == contents(swept)


def test_the_table_of_injections_covers_the_papers_heads(tmp_path: Path) -> None:
    sizes = SMALL[: SMALL.index("--score")]
    sweep("injections", "synthetic", *sizes, "-o", tmp_path / "out")
    table = read_json(tmp_path / "out" / "sweep.json")
    assert table["injections"] == [
        "global_adaln", "input_add", "audio_prepend", "text_prepend", "score_token", "cross_attention", "film",
    ]  # fmt: skip
    assert table["models"] == ["synthetic"] and not [cell for cell in table["cells"] if cell["failed"]]
    assert {cell["run"]: cell["native"] for cell in table["cells"]}["global_adaln"]


def test_a_folder_of_another_sweep_is_refused(swept: Path) -> None:
    before = contents(swept)
    refused("sampling.steps; choose another --output", "score", "a=synthetic", "-n", "2", "--steps", "2",
            "--reference-clips", "4", "--score", "0", "--score", "3", "-o", swept)  # fmt: skip
    refused("holds a sweep over scores, not a sweep over injections", "injections", "synthetic", "-n", "2", "-o", swept)
    assert contents(swept) == before


def refused(said: str, *arguments: str | Path) -> None:
    """The command fails in one line."""
    with pytest.raises(PlauditError, match=said) as failed:
        sweep(*arguments)
    assert "\n" not in str(failed.value)


@pytest.fixture
def deaf(tmp_path: Path) -> Path:
    """A model folder whose model takes no score."""
    config = read_json(MODELS["synthetic"] / "config.json")
    config["backbone"]["injection"] = "none"
    write_json(tmp_path / "deaf" / "config.json", config)
    return tmp_path / "deaf"


def test_bad_input_is_one_line_and_leaves_nothing(deaf: Path, tmp_path: Path) -> None:
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("slow sad piano\n")
    refused("no model 'nowhere'", "score", "nowhere", "-o", out)
    refused("deaf takes no score", "score", deaf, "-o", out)
    refused("deaf takes no score", "injections", deaf, "-n", "2", "--reference-clips", "4", "-o", tmp_path / "other")
    refused("score 1 is given twice", "score", "synthetic", "--score", "1", "--score", "1.0", "-o", out)
    refused("at least two scores", "score", "synthetic", "--score", "1", "-o", out)
    refused("at least two prompts", "score", "synthetic", "--prompts", prompts, "-o", out)
    refused("at least two prompts", "score", "synthetic", "-n", "1", "-o", out)
    refused("no metric 'fad'", "score", "synthetic", "--metric", "fad", "-o", out)
    refused("no injection 'adaln'", "injections", "synthetic", "--injection", "adaln", "-o", out)
    refused("two models are called 'synthetic'", "injections", "synthetic", "synthetic", "-o", out)
    refused("no recipe 'nowhere'", "injections", "--recipe", "nowhere", "-o", out)
    for arguments in ([], ["synthetic", "--recipe", "smoke"], ["synthetic", "--set", "name=x"]):
        with pytest.raises(typer.BadParameter):
            sweep("injections", *arguments)
    with pytest.raises(typer.BadParameter, match="it must be from"):
        sweep("score", "synthetic", "--score", "nan", "--score", "1", "-o", out)


def test_a_folder_of_something_else_is_not_swept_over(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(load_recipe("synthetic").to_yaml())
    refused("neither empty nor a folder that plaudit made", "injections", "--recipe", "smoke", "-o", tmp_path)
    refused("neither empty nor a folder that plaudit made", "score", "synthetic", "-n", "2", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


TINY = ("corpus.size=100", "corpus.seconds=3", "votes.pairs=60", "votes.validation_pairs=20", "reward.max_epochs=2",
        "stages.sft.train.steps=4", "stages.sft.train.checkpoint_every=2", "sampling.steps=1", "evaluate.prompts=3",
        "evaluate.reference_clips=6", "sampling_batch=8")  # fmt: skip


@pytest.mark.slow
def test_a_recipe_is_trained_once_per_injection_and_fills_the_table(tmp_path: Path) -> None:
    changes = [part for change in TINY for part in ("--set", change)]
    arguments = command("injections", "--recipe", "smoke", *changes, "--injection", "global_adaln", "--injection",
                        "film", "--metric", "vendi", "-o", tmp_path, "--json")  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert [(c["model"], c["run"], c["native"]) for c in numbers["cells"]] == [
        ("global_adaln", "global_adaln", True), ("global_adaln", "film", False),
        ("film", "global_adaln", False), ("film", "film", True),
    ]  # fmt: skip
    assert all(cell["sets"][0]["metric"] == "vendi" for cell in numbers["cells"])
    for injection in ("global_adaln", "film"):
        assert read_json(tmp_path / f"sft-{injection}" / "config.json")["backbone"]["injection"] == injection
        assert sorted(p.name for p in (tmp_path / "table" / injection).iterdir()) == ["film", "global_adaln"]
    again = subprocess.run(arguments, capture_output=True, text=True)
    assert again.stdout == done.stdout
    assert all(line.endswith(": done") for line in again.stderr.splitlines() if ": " in line)
    models = [f"{name}={tmp_path / f'sft-{name}'}" for name in ("global_adaln", "film")]
    given = subprocess.run(
        command("injections", *models, "--injection", "film", "-n", 2, "--steps", 1, "--reference-clips", 4,
                "-o", tmp_path / "given", "--json"), capture_output=True, text=True,
    )  # fmt: skip
    assert given.returncode == 0, given.stderr
    assert [cell["native"] for cell in json.loads(given.stdout)["cells"]] == [False, True]
    assert "NaN" not in given.stdout  # which is no JSON, and two prompts are few

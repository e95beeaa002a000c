"""`plaudit reward` from files to figures, and what it says of what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.corpus.embedded.source import EmbeddedCorpus
from plaudit.errors import PlauditError
from plaudit.reward.votes import write_votes
from plaudit.types import Vote


def plaudit(*arguments: str | Path) -> Result:
    """The command, in this process: what it prints for an error is tested beside this file."""
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("votes")
    corpus = EmbeddedCorpus(12, 2.0, 3)
    for n, clip in enumerate(corpus.clips):
        write_wav(folder / "audio" / f"{n}.wav", corpus.render(clip), corpus.rate)
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("validation", 20), ("test", 30)):
        pairs = [random.choice(12, 2, replace=False) for _ in range(count)]
        made = [
            Vote(f"{name}{n}", "piano " * 2000 if n % 2 else "", f"{a}", f"{b}", "a" if a > b else "b",
                 f"s{a % 3}", f"s{b % 3}", f"source {n % 2}", "l")
            for n, (a, b) in enumerate(pairs)
        ]  # fmt: skip
        write_votes(folder / f"{name}.jsonl", [*made, Vote(f"{name}-gone", "", "0", "gone", "a", "s0", "s1", "x", "l")])
    return folder


def inputs(work: Path) -> list[str]:
    files = [str(work / f"{name}.jsonl") for name in ("train", "validation", "test")]
    return ["--audio", str(work / "audio"), *(word for file in files for word in ("--votes", file))]


def test_train_then_evaluate_then_probe(work: Path) -> None:
    small = ("--preset", "embedded", "--max-epochs", "3", "--features", work / "features")
    made = plaudit("reward", "train", *inputs(work), "-o", work / "reward", "--seeds", "0,1", *small, "--json")
    assert made.exit_code == 0, made.exception
    assert "1 clips are missing (gone); 3 votes that name them are left out" in made.stderr
    figures = json.loads(made.stdout)
    assert set(figures["seeds"]) == {"0", "1"} and figures["best_seed"] in (0, 1)
    config = json.loads((work / "reward" / "config.json").read_text())
    assert config["settings"]["seed"] == figures["best_seed"] and config["seeds"]["accuracy"] == figures["accuracy"]

    votes = ("--votes", work / "test.jsonl", "--audio", work / "audio", "--features", work / "features")
    told = plaudit("reward", "evaluate", work / "reward", *votes, "-o", work / "evaluation")
    assert told.exit_code == 0, told.exception
    found = json.loads((work / "evaluation" / "evaluation.json").read_text())
    assert found["overall"]["accuracy"] == figures["seeds"][str(figures["best_seed"])]["test"]["accuracy"]
    assert f"{found['same_system']} votes are between two clips of one system" in told.stdout

    scored = work / "evaluation" / "scores.csv"
    again = plaudit("reward", "evaluate", "--scores", scored, "-o", work / "again", "--json")
    assert json.loads(again.stdout) == found

    probed = plaudit("reward", "probe", work / "reward", work / "audio", "--json")
    assert probed.exit_code == 0 and json.loads(probed.stdout)["silence_refused"] is True


def test_ablate_writes_one_table(work: Path) -> None:
    small = ("--preset", "embedded", "--max-epochs", "2", "--features", work / "features", "--seeds", "0,1")
    made = plaudit("reward", "ablate", *inputs(work), "-o", work / "ablation", *small)
    assert made.exit_code == 0, made.exception
    rows = json.loads((work / "ablation" / "ablation.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [*(f"A{n}" for n in range(1, 8)), "without source 0", "without source 1"]
    assert "A7" in made.stdout and "±" in made.stdout


def refusals(work: Path, folder: Path) -> dict[str, list[str | Path]]:
    """What each message is said of."""
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text('{"kind": "tunejury"}')
    tie = Vote("1", "", "0", "1", "tie", "", "", "", "")
    write_votes(folder / "ties.jsonl", [tie])
    write_votes(folder / "one.jsonl", [Vote("1", "", "0", "1", "a", "", "", "", "")])
    write_votes(folder / "gone.jsonl", [Vote("1", "", "x", "y", "a", "", "", "", "")])
    audio: list[str | Path] = ["--audio", work / "audio"]
    evaluate: list[str | Path] = ["evaluate", "embedded", *audio, "-o", folder / "out", "--votes"]
    return {
        "all of the 1 votes are ties": [*evaluate, folder / "ties.jsonl"],
        "none of 1 votes names two clips that are there": [*evaluate, folder / "gone.jsonl"],
        "1 votes leave none for": ["train", *audio, "--votes", folder / "one.jsonl"],
        "holds no audio": ["train", "--audio", folder / "empty", "--votes", work / "train.jsonl"],
        "does not describe a reward": ["probe", folder / "damaged", work / "audio"],
        "no audio under": ["probe", "embedded", folder / "empty"],
        "must be different whole numbers": ["train", *inputs(work), "--seeds", "1,1"],
        "one or more distinct of": ["train", *inputs(work), "--blocks", "mert", "-o", folder / "reward",
                                     "--features", work / "features"],
        "give a reward with --votes and --audio, or --scores alone": ["evaluate", "embedded"],
    }  # fmt: skip


def test_what_cannot_be_used_is_one_line(work: Path, tmp_path: Path) -> None:
    for said, arguments in refusals(work, tmp_path).items():
        done = plaudit("reward", *arguments)
        assert isinstance(done.exception, PlauditError) and said in str(done.exception), (said, done.exception)
        assert "\n" not in str(done.exception)

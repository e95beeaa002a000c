"""`plaudit score` and `plaudit rank` as they are typed."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plaudit.reward.calibration import Bias, Calibration, save_calibration
from tests.cli.command import Done
from tests.cli.command import plaudit as run

Plaudit = Callable[..., Done]


@pytest.fixture
def plaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plaudit:
    """The command with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return run


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips of rising pitch, and noise."""
    folder, time = tmp_path / "clips", np.arange(32000) / 16000
    folder.mkdir()
    for name, hz in (("a", 220), ("b", 330), ("c", 440)):
        soundfile.write(folder / f"{name}.wav", 0.3 * np.sin(2 * np.pi * hz * time), 16000)
    soundfile.write(folder / "d.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    return folder


def test_scores_as_json_csv_and_again_from_the_cache(plaudit: Plaudit, clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"file,prompt,system\n{clips}/a.wav,{'piano ' * 2000},ours\n{clips}/b.wav,,theirs\n")
    first = plaudit("score", "-", "--table", table, "--prompt", "drums", "--json", stdin=f"{clips}/c.wav\n")
    assert first.code == 0, first.err
    rows = json.loads(first.out)
    assert [(Path(r["file"]).name, r["prompt"][:6], r.get("system")) for r in rows] == [
        ("a.wav", "piano ", "ours"), ("b.wav", "drums", "theirs"), ("c.wav", "drums", None)
    ]  # fmt: skip
    assert (tmp_path / "cache" / "plaudit" / "scores" / "scores.sqlite").is_file()
    again = plaudit("score", "--table", table, "--prompt", "drums", "--csv", "-")
    cached = list(csv.DictReader(io.StringIO(again.out)))
    assert [float(row["reward"]) for row in cached] == [row["reward"] for row in rows[:2]]


def test_a_reference_gives_percentiles_and_is_of_one_reward(plaudit: Plaudit, clips: Path, tmp_path: Path) -> None:
    saved = tmp_path / "ref.json"
    assert plaudit("score", clips, "--save-reference", saved).code == 0
    by_file = json.loads(plaudit("score", clips, "--reference", saved, "--json").out)
    by_folder = json.loads(plaudit("score", clips, "--reference", clips, "--json").out)
    assert sorted(row["percentile"] for row in by_file) == [12.5, 37.5, 62.5, 87.5]
    assert [row["percentile"] for row in by_folder] == [row["percentile"] for row in by_file]
    assert by_file[0]["percentile_definition"].startswith("mid-rank among 4 scores")
    refused = plaudit("score", clips, "--reference", saved, "--reward", "synthetic-clap")
    assert refused.code == 1 and "is of another reward" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_biases_of_systems_are_subtracted(plaudit: Plaudit, clips: Path, tmp_path: Path) -> None:
    table, biases = tmp_path / "table.csv", tmp_path / "c.json"
    table.write_text(f"file,system\n{clips}/a.wav,ours\n{clips}/b.wav,theirs\n{clips}/c.wav,\n")
    save_calibration(biases, Calibration("theirs", {"ours": Bias(0.75, 0.1, 9), "theirs": Bias(0.0, 0.0, 9)}))
    done = plaudit("score", "--table", table, "--calibration", biases, "--json")
    assert done.code == 0, done.err
    ours, theirs, nobodys = json.loads(done.out)
    assert ours["calibrated"] == pytest.approx(ours["reward"] - 0.75)
    assert theirs["calibrated"] == theirs["reward"] and nobodys["calibrated"] == nobodys["reward"]
    assert done.err.count("has no bias of (none): their scores are not calibrated") == 1
    biases.write_text("{}")
    wrong = plaudit("score", "--table", table, "--calibration", biases)
    assert wrong.code == 1 and "is no calibration" in wrong.err


def test_the_best_are_ranked_and_copied(plaudit: Plaudit, clips: Path, tmp_path: Path) -> None:
    (clips / "e.wav").write_text("no audio")
    done = plaudit("rank", clips, "--prompt", "calm", "-n", 2, "--copy", tmp_path / "best", "--json")
    rows = json.loads(done.out)
    assert done.code == 1 and "e.wav" in done.err
    assert [(row["rank"], row["of"]) for row in rows] == [(1, 4), (2, 4)]
    assert rows[0]["margin"] == pytest.approx(rows[0]["reward"] - rows[1]["reward"])
    assert sorted(p.name for p in (tmp_path / "best").iterdir()) == [Path(row["copy"]).name for row in rows]


def test_an_unwritable_cache_is_reported_once(plaudit: Plaudit, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = plaudit("score", clips, "--reference", clips)
    assert done.code == 0 and done.out.count("│") > 4
    assert done.err.count("scores are not cached") == 1
    assert plaudit("score", clips, "--no-cache").err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("score",), 2, "no files"),
        (("score", "-"), 1, "standard input is empty"),
        (("score", "x.wav", "--reward", "nowhere"), 1, "no reward 'nowhere': give one of synthetic"),
        (("rank", "--table", "nowhere.csv"), 1, "nowhere.csv does not exist"),
    ],
)
def test_usage_errors_give_advice(plaudit: Plaudit, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = plaudit(*arguments)
    assert done.code == code and said in " ".join(done.err.split())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_is_named_in_one_line(clips: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "plaudit", "score", str(clips), "--csv", "-"],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode != 0 and "No space left" in done.stderr


@pytest.mark.slow
def test_two_processes_score_the_same_folder_at_once(plaudit: Plaudit, clips: Path) -> None:
    command = [sys.executable, "-m", "plaudit", "score", str(clips), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0] and not any(err for _, err in said)
    scores = [[row["reward"] for row in json.loads(out)] for out, _ in said]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)

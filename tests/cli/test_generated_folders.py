"""Folders of `plaudit generate` as the other commands find them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from plaudit.cli.main import app

Run = Callable[..., Result]
FAST = ("--steps", "1", "--device", "cpu", "--guidance", "1")


@pytest.fixture
def plaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def ok(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    (tmp_path / "p.txt").write_text("slow sad piano in a minor key\nfast electronic dance with drums\ncalm harp\n")
    return tmp_path / "p.txt"


def test_best_of_leaves_a_folder_that_all_commands_understand(plaudit: Run, prompts: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", prompts.read_text().splitlines()
    ok(plaudit("generate", "--prompts", prompts, "--best-of", 2, *FAST, "-o", out))
    assert len(list((out / "candidates").glob("*.wav"))) == 6
    scored = ok(plaudit("score", out, "--json"))
    rows = json.loads(scored.stdout)
    assert [row["prompt"] for row in rows] == lines and "candidates of --best-of" in scored.stderr
    rows = json.loads(ok(plaudit("score", out, "--prompt", "drums", "--json")).stdout)
    assert {row["prompt"] for row in rows} == {"drums"}
    ranked = json.loads(ok(plaudit("rank", out, out / "candidates", "--json")).stdout)
    assert [(row["prompt"], row["of"]) for row in ranked] == [(line, 3) for line in lines]
    for _ in range(2):  # copies of an earlier ranking are no clips to rank
        ranked = json.loads(ok(plaudit("rank", out, "--copy", out / "best", "--json")).stdout)
        assert [row["of"] for row in ranked] == [1, 1, 1]
        assert len(list((out / "best").glob("*.json"))) == len(list((out / "best").glob("*.wav"))) == 3
    refused = plaudit("rank", out, "--copy", out)
    assert refused.exit_code == 1 and "copy into another folder" in str(refused.exception)


def test_evaluations_find_the_clips_of_a_list_and_compare_them(plaudit: Run, prompts: Path, tmp_path: Path) -> None:
    for name, words in (("a", ()), ("b", ("--seed", "9"))):
        ok(plaudit("generate", "--prompts", prompts, "-n", 2, *FAST, *words, "-o", tmp_path / name))
        metrics = ("--metric", "reward", "--metric", "clap")
        for kind, more in (("listed", ("--prompts", prompts)), ("own", ())):
            ok(plaudit("evaluate", tmp_path / name, *more, *metrics, "-o", tmp_path / f"{kind}-{name}"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "listed-a" / "clips.csv").read_text())))
    assert [(row["id"], row["seed"]) for row in rows] == [(str(i // 2 + 1), str(i)) for i in range(6)]
    for kind in ("listed", "own"):
        found = json.loads(ok(plaudit("compare", tmp_path / f"{kind}-a", tmp_path / f"{kind}-b", "--json")).stdout)
        assert {(row["prompts"], row["seeds"]) for row in found["comparisons"]} == {(3, 2)}
    evaluated = {row["metric"]: row["difference"] for row in found["comparisons"]}
    done = ok(plaudit("compare", tmp_path / "a", tmp_path / "b", "--json"))
    of_clips = {row["metric"]: row["difference"] for row in json.loads(done.stdout)["comparisons"]}
    assert {name: of_clips[name] for name in evaluated} == evaluated and "has not been evaluated" in done.stderr


def test_prompts_of_a_list_do_not_begin_with_the_same_noise(plaudit: Run, prompts: Path, tmp_path: Path) -> None:
    ok(plaudit("generate", "--prompts", prompts, "-n", 2, "--seed", 5, *FAST, "-o", tmp_path / "out"))
    sidecars = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    lines = prompts.read_text().splitlines()
    seeds = {line: sorted(s["seed"] for s in sidecars if s["prompt"] == line) for line in lines}
    assert list(seeds.values()) == [[5, 6], [7, 8], [9, 10]]


def test_truncation_is_reported_and_recorded(plaudit: Run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{'calm ' * 31}{end}\n" for end in ("slow piano", "drums")))
    done = ok(plaudit("generate", "--prompts", tmp_path / "p.txt", *FAST, "-o", tmp_path / "out"))
    assert 'prompt 1: only the first 31 words are read, not "slow piano"' in done.stderr
    assert 'prompt 2: only the first 31 words are read, not "drums"' in done.stderr
    truncation = {json.loads(path.read_text())["truncation"] for path in (tmp_path / "out").glob("*.json")}
    assert truncation == {f'only the first 31 words are read, not "{end}"' for end in ("slow piano", "drums")}
    done = ok(plaudit("generate", "calm piano", *FAST, "-o", tmp_path / "out"))
    assert done.stderr == "" and json.loads((tmp_path / "out" / "calm-piano-0.json").read_text())["truncation"] == ""

"""Labels by rewards that are not trained in the run: scored in parts, which an interrupted run keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import ModelError
from plaudit.pipeline import data
from plaudit.pipeline.steps import run_recipe, steps
from plaudit.recipe import Recipe, load_recipe
from plaudit.reporting import Silent
from plaudit.storage import read_json

REWARD = """
from pathlib import Path

class Peak:
    calls = 0

    def score(self, waves, rate, prompts):
        Peak.calls += 1
        if Peak.calls > 2 and Path(__file__).with_name("broken").exists():
            raise RuntimeError("out of luck")
        return [wave.abs().max().item() for wave in waves]
"""


def recipe(name: str) -> Recipe:
    return load_recipe("smoke", ["corpus.size=40", "reward.kind=load", f"reward.name={name}"])


def test_an_interrupted_scoring_keeps_its_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PART", 16)
    (tmp_path / "peak.py").write_text(REWARD)
    (tmp_path / "broken").touch()
    settings, run = recipe(f"{tmp_path}/peak.py:Peak"), tmp_path / "run"
    with pytest.raises(ModelError, match="out of luck"):
        run_recipe(settings, run, Silent(), "labels")
    parts = sorted((run / "labels" / "parts").iterdir())
    before = {part: part.stat().st_mtime_ns for part in parts}
    assert len(parts) == 2 and not (run / "labels" / "rewards.json").exists()
    (tmp_path / "broken").unlink()
    run_recipe(settings, run, Silent(), "labels")
    assert {part: part.stat().st_mtime_ns for part in parts} == before
    scores = read_json(run / "labels" / "rewards.json")["rewards"]
    assert len(scores) == 40 and scores[:32] == [score for part in parts for score in read_json(part)]
    assert all(0 < score <= 1 for score in scores)


def test_any_kind_of_reward_can_label_a_corpus(tmp_path: Path) -> None:
    assert [step.name for step in steps(recipe("synthetic-clap"))][:4] == ["corpus", "shards", "labels", "sft"]
    run_recipe(recipe("synthetic-clap"), tmp_path / "run", Silent(), "labels")
    scores = read_json(tmp_path / "run" / "labels" / "rewards.json")["rewards"]
    assert len(scores) == 40 and all(-1 <= score <= 1 for score in scores) and len(set(scores)) == 40

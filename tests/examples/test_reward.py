"""The example of a reward scores and ranks clips, chooses among candidates, and is the reward of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from plaudit import loading
from plaudit.audio import read_audio, write_wav
from plaudit.cli.main import app
from plaudit.corpus.clips import ClipReader
from plaudit.corpus.shard_set import ShardSet
from plaudit.corpus.sources import corpus_source
from plaudit.errors import ModelError
from plaudit.pipeline.steps import run_recipe, steps
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.recipe import load_recipe
from plaudit.reporting import Silent
from plaudit.storage import read_json
from tests.examples.small import EXAMPLES

NAME = f"{EXAMPLES / 'reward.py'}:Warmth"
SMALL = [
    "corpus.size=40", "corpus.flawed_fraction=0", "sampling.steps=1", "stages.sft.train.steps=2",
    "stages.expert_iteration.candidates=4", "stages.expert_iteration.keep=2",
    "stages.expert_iteration.train.steps=1", "stages.expert_iteration.fine_tune=null",
]  # fmt: skip


def tone(frequency: float, rate: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for frequency in (500, 1000, 4000):
        write_wav(tmp_path / "clips" / f"{frequency}.wav", tone(frequency), 16000)
    return tmp_path


def test_commands_score_and_rank_by_it(folder: Path) -> None:
    done = CliRunner().invoke(app, ["score", str(folder / "clips"), "--reward", NAME, "--json"])
    rewards = {Path(row["file"]).stem: row["reward"] for row in json.loads(done.stdout)}
    assert rewards == pytest.approx({"500": 2.0, "1000": 1.0, "4000": -1.0}, abs=0.1)
    done = CliRunner().invoke(app, ["rank", str(folder / "clips"), "--reward", NAME, "--json"])
    assert [Path(row["file"]).stem for row in json.loads(done.stdout)] == ["500"]


def test_generation_keeps_the_best_candidate_by_it(folder: Path) -> None:
    words = ["generate", "calm piano", "--best-of", "3", "--steps", "1", "--device", "cpu", "--reward", NAME]
    done = CliRunner().invoke(app, [*words, "-o", str(folder / "out")])
    assert done.exit_code == 0, done.output
    (sidecar,) = (folder / "out").glob("*.json")
    (clip,) = (folder / "out").glob("*.wav")
    best = read_json(sidecar)["best_of"]
    wave, rate = read_audio(clip)
    score = loading.load_reward(NAME).score([torch.from_numpy(wave)], rate, [""]).item()
    assert len(best["rewards"]) == 3 and score == pytest.approx(max(best["rewards"]), abs=1e-3)


def test_a_run_labels_its_corpus_and_keeps_candidates_by_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((SHIPPED_WEIGHTS.parent / "recipes" / "smoke.yaml").read_text())
    (tmp_path / "warmth.py").write_text((EXAMPLES / "reward.py").read_text())
    changes = [*SMALL, "reward.kind=load", "reward.name=warmth.py:Warmth"]
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), changes)  # the file is relative to the recipe
    assert [step.name for step in steps(recipe)][:4] == ["corpus", "shards", "labels", "sft"]
    run = tmp_path / "run"
    run_recipe(recipe, run, Silent(), "expert_iteration")
    labels = read_json(run / "labels" / "rewards.json")["rewards"]
    corpus = corpus_source(recipe.corpus).open(run / "corpus" / "manifest.jsonl")
    ids = ShardSet(run / "shards").ids
    clips, reward = ClipReader(corpus, ids, recipe.corpus.seconds), loading.load_reward(NAME)
    for place in (0, 17, 39):
        wave, rate = clips.read(ids[place])
        assert labels[place] == pytest.approx(reward.score([torch.from_numpy(wave)], rate, [""]).item(), abs=1e-4)
    candidates = run / "expert_iteration" / "round-1" / "candidates"
    for path, score in zip(
        sorted(candidates.glob("*.wav")), read_json(candidates / "scores.json")["reward"], strict=True
    ):
        wave, rate = read_audio(path)
        assert score == pytest.approx(reward.score([torch.from_numpy(wave)], rate, [""]).item(), abs=1e-3)

    before = (run / "labels" / "rewards.json").stat().st_mtime_ns
    run_recipe(recipe, run, Silent(), "labels")
    assert (run / "labels" / "rewards.json").stat().st_mtime_ns == before
    changed = (tmp_path / "warmth.py").read_text().replace("2000.0", "1000.0")
    (tmp_path / "warmth.py").write_text(changed)
    (stale,) = (step for step in steps(recipe) if step.name == "labels")
    assert stale.external["reward.name"] != loading.REWARDS.identity(NAME)


def test_a_score_that_is_not_finite_names_the_clip(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "class Broken:\n    def score(self, waves, rate, prompts):\n        return [float('nan') for _ in waves]\n"
    )
    changes = [*SMALL, "reward.kind=load", f"reward.name={tmp_path}/broken.py:Broken"]
    with pytest.raises(ModelError, match=r"of clip synthetic-0-0.* is not finite; correct the reward's code"):
        run_recipe(load_recipe("smoke", changes), tmp_path / "run", Silent(), "labels")
    assert math.isnan(loading.load_reward(f"{tmp_path}/broken.py:Broken").score([torch.ones(9)], 1, [""])[0])

"""The example of a stage: it runs from a recipe that names its file, and keeps the clips it says it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import plaudit
from examples.stage import best_clips
from plaudit.errors import RecipeError
from plaudit.recipe import load_recipe
from plaudit.reporting import Silent
from plaudit.training.data import Source
from tests.examples.small import EXAMPLES
from tests.stages.noise import tiny_shards

KIND = f"{EXAMPLES / 'stage.py'}:BestClips"
RECIPE = f"""
name: filtered
corpus: {{size: 24, seconds: 3}}
reward: {{kind: load, name: synthetic}}
backbone: {{overrides: {{hidden_dim: 64, num_heads: 1, depth: 2, fused_depth: 1}}}}
stages:
  - {{kind: sft, train: {{steps: 2, learning_rate: 1.0e-3, batch: 4, warmup: 1}}}}
  - {{kind: "{KIND}", name: best, fraction: 0.2, train: {{steps: 2, learning_rate: 1.0e-3, batch: 4, warmup: 1}}}}
"""


def test_the_best_are_kept_in_order_and_none_without_a_reward(tmp_path: Path) -> None:
    shards = tiny_shards(tmp_path)
    rows = shards.rows("train")[:6]
    corpus = Source(shards, rows, np.array([0.1, np.nan, 3.0, -1.0, 2.0, 0.5]))
    kept = best_clips(corpus, 0.4)
    assert list(kept.scores) == [3.0, 2.0] and list(kept.rows) == [rows[2], rows[4]]
    assert len(best_clips(corpus, 1.0).rows) == 5
    with pytest.raises(RecipeError, match="is no clip"):
        best_clips(corpus, 0.01)


def test_it_runs_from_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    folder = plaudit.run(tmp_path / "recipe.yaml", output=tmp_path / "run", only="best", reporter=Silent())
    assert folder == tmp_path / "run" / "best"
    assert json.loads((folder / "config.json").read_text())["provenance"]["stage"] == "best"
    before, after = (plaudit.load(str(tmp_path / "run" / name), "cpu").backbone for name in ("sft", "best"))
    assert not all((a == b).all() for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [("stages.best.fraction=2", "less than or equal to 1"), ("stages.best.fractoin=1", "did you mean fraction")],
)
def test_its_settings_are_validated_with_the_recipe(tmp_path: Path, change: str, says: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=says) as error:
        load_recipe(str(tmp_path / "recipe.yaml"), [change])
    assert "\n" not in str(error.value)

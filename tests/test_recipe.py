"""Recipes: validation, changes from the command line, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import RecipeError
from plaudit.recipe import SHIPPED, Recipe, load_recipe
from plaudit.settings import validated


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path.stem)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(str(copy)) == recipe
    assert recipe.name == path.stem


def test_set_changes_one_value_and_the_fingerprint() -> None:
    plain, changed = load_recipe("smoke"), load_recipe("smoke", ["stages.crpo.beta=500"])
    assert plain.stages.crpo is not None and changed.stages.crpo is not None
    assert (plain.stages.crpo.beta, changed.stages.crpo.beta) == (2000.0, 500.0)
    assert plain.fingerprint() != changed.fingerprint()
    assert plain.fingerprint() == load_recipe("smoke").fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages.crpo.betta=500", "did you mean beta?"),
        ("corpsu.size=5", "did you mean corpus?"),
        ("sampling.guidance.wieght=5", "weight"),
        ("stages.zzz=5", "known keys here are sft, expert_iteration, cross_load, crpo"),
        ("post.separate.pases=3", "did you mean passes?"),
        ("post.ceiling=3", "less than or equal to 0"),
        ("corpus.size=-3", "greater than or equal to 1"),
        ("corpus.kind=folder", "corpus.table"),
        ("stages.cross_load=null", "out of order"),
        ("stages.expert_iteration.keep=100000", "must not exceed candidates"),
        ("reward.kind=table", "corpus.reward_column"),
        ("name=../escape", "name"),
        ("evaluate.prompts=many", "integer"),
        ("=", ""),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_to_do(change: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", [change])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_missing_or_no_recipe() -> None:
    with pytest.raises(RecipeError, match="one of demo, embedded"):
        load_recipe("nowhere")
    with pytest.raises(RecipeError, match="unknown key"):
        values = {"name": "x", "stages": {"sft": {"train": {"steps": 1, "learning_rate": 1}}}, "sead": 1}
        validated(Recipe, values, "here")


@pytest.mark.parametrize("content", ["name: [", "just words", "\x00\x01", "- a\n- b"])
def test_a_file_that_is_not_a_recipe(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)

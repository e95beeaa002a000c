"""Recipes: validation, changes from the command line, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import RecipeError
from plaudit.recipe import SHIPPED_RECIPES, Recipe, load_recipe
from plaudit.settings import validated


@pytest.mark.parametrize("path", sorted(SHIPPED_RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path.stem)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(str(copy)) == recipe
    assert recipe.name == path.stem


def test_a_shipped_recipe_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("recipes/smoke.yaml") == load_recipe("smoke")
    for wrong in ("recipes/nowhere.yaml", "mine/smoke.yaml"):
        with pytest.raises(RecipeError, match="no recipe"):
            load_recipe(wrong)
    (tmp_path / "recipes").write_text("no folder")
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("recipes/nowhere.yaml")
    assert load_recipe("recipes/smoke.yaml").name == "smoke"


def test_a_folder_of_the_shipped_recipes_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").mkdir()
    assert load_recipe("smoke").name == "smoke"


def test_a_folder_of_audio_trains_the_shipped_model_further() -> None:
    assert load_recipe("folder").backbone.start_from == "synthetic"
    assert load_recipe("folder", ["backbone.start_from=null"]).backbone.start_from is None


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
        ("stages.zzz=5", "known keys here are sft, expert_iteration, cross_load, pairs, crpo, nft"),
        ("post.separate.pases=3", "did you mean passes?"),
        ("post.ceiling=3", "less than or equal to 0"),
        ("corpus.size=-3", "greater than or equal to 1"),
        ("corpus.kind=folder", "corpus.table"),
        ("stages.pairs=null", "stage crpo needs pairs before it"),
        ("stages.crpo=null", "stages.pairs is for crpo or nft"),
        ("stages.nft.train={steps: 1, learning_rate: 1e-3}", "two ways to do the same"),
        ("stages.pairs.per_caption=2", "2 candidates make at most 1 pairs per caption"),
        ("stages.pairs.pairs=9", "must not exceed captions x per_caption (8)"),
        ("corpus.kind=shards", "corpus.folder, a shard set"),
        ("backbone.start_from=synthetic", "leave them out"),
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
    with pytest.raises(RecipeError, match="one of data-free-expert, demo, folder"):
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


def test_a_stage_begins_with_the_nearest_one_before_it() -> None:
    stages = load_recipe("smoke", ["stages.expert_iteration=null"]).stages
    assert stages.models == ["sft", "cross_load", "crpo"]
    assert stages.before("cross_load") == "sft"
    assert stages.before("pairs") == stages.before("crpo") == stages.before("nft") == "cross_load"
    alone = load_recipe("smoke", ["stages.expert_iteration=null", "stages.cross_load=null"])
    assert alone.stages.before("crpo") == "sft"


def test_no_precision_is_no_precision_in_yaml_too() -> None:
    plain = load_recipe("smoke", ["precision=no", "sampling.precision=no"])
    assert plain.precision == plain.sampling.precision == "no"
    with pytest.raises(RecipeError, match="precision"):
        load_recipe("smoke", ["precision=yes"])

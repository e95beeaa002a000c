"""Recipes: validation, changes from the command line, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import RecipeError
from plaudit.pipeline.results import baseline_sampling
from plaudit.pipeline.steps import steps
from plaudit.recipe import SHIPPED_RECIPES, Recipe, load_recipe
from plaudit.settings import validated
from plaudit.stages.crpo import CrpoSettings


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


def test_the_papers_baseline_differs_from_its_first_stage_in_the_score_alone() -> None:
    baseline, paper = load_recipe("paper-baseline"), load_recipe("paper")
    for part in ("corpus", "models", "reward", "training_loop"):
        assert getattr(baseline, part) == getattr(paper, part), part
    assert baseline.stage("sft").train == paper.stage("sft").train
    assert baseline.backbone == paper.backbone.model_copy(update={"injection": "none"})
    row = baseline_sampling(paper.sampling, paper.evaluate.baseline)
    assert baseline.sampling == row
    assert (baseline.evaluate.prompt_file, baseline.evaluate.reference, baseline.evaluate.seed) == (
        paper.evaluate.prompt_file, paper.evaluate.reference, paper.evaluate.seed
    )  # fmt: skip


def test_a_folder_of_audio_trains_the_shipped_model_further() -> None:
    assert load_recipe("folder").backbone.start_from == "synthetic"
    assert load_recipe("folder", ["backbone.start_from=null"]).backbone.start_from is None


def test_set_changes_one_value_and_the_fingerprint() -> None:
    plain, changed = load_recipe("smoke"), load_recipe("smoke", ["stages.crpo.beta=500"])
    for recipe, beta in ((plain, 2000.0), (changed, 500.0), (load_recipe("smoke", ["stages.4.beta=500"]), 500.0)):
        crpo = recipe.stage("crpo")
        assert isinstance(crpo, CrpoSettings) and crpo.beta == beta
    assert plain.fingerprint() != changed.fingerprint()
    assert plain.fingerprint() == load_recipe("smoke").fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages.crpo.betta=500", "did you mean beta?"),
        ("corpsu.size=5", "did you mean corpus?"),
        ("sampling.guidance.wieght=5", "weight"),
        ("stages.zzz=5", "stages.5 has no kind; kinds of stages are cross_load, crpo"),
        ("stages.crop.beta=5", "no stage crop; did you mean crpo?"),
        ("stages.9.beta=5", "there is no stages.9; the recipe has 5 stages"),
        ("stages.sft.kind=stf", "no stage 'stf': did you mean 'sft'?"),
        ("stages.crpo.train.caption_dropout=0.1", "unknown key train.caption_dropout"),
        ("stages.crpo.name=votes", "has the name of another step"),
        ("stages.crpo.name=sft", "two stages are called sft"),
        ("stages.crpo.start_from=pairs", "models before it: sft, expert_iteration, cross_load"),
        ("stages={sft: {}}", "stages is a list now"),
        ("stages=[sft]", "stages.0 has no kind"),
        ("stages=[]", "add one, e.g. {kind: sft"),
        ("backbone.injection=flim", "did you mean 'film'"),
        ("loop.prefetch=3", "loop is called training_loop now"),
        ("stages.sft.injection=film", "stages.sft.injection is called backbone.injection now"),
        ("post.separate.pases=3", "did you mean passes?"),
        ("post.ceiling=3", "less than or equal to 0"),
        ("corpus.size=-3", "greater than or equal to 1"),
        ("corpus.kind=folder", "corpus.table"),
        ("stages.pairs=null", "stage crpo needs pairs before it"),
        ("stages.crpo=null", "nothing uses the pairs of stage pairs"),
        ("stages.pairs.per_caption=2", "2 candidates make at most 1 pairs per caption"),
        ("stages.pairs.pairs=9", "must not exceed captions x per_caption (8)"),
        ("corpus.kind=shards", "corpus.folder, a shard set"),
        ("backbone.start_from=synthetic", "leave them out"),
        ("stages.expert_iteration.keep=100000", "must not exceed candidates"),
        ("stages.expert_iteration.candidates_per_prompt=7", "must be a multiple of candidates_per_prompt"),
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
    with pytest.raises(RecipeError, match="one of data-free-expert, demo, distill, folder"):
        load_recipe("nowhere")
    with pytest.raises(RecipeError, match="unknown key"):
        values = {"name": "x", "stages": [{"kind": "sft", "train": {"steps": 1, "learning_rate": 1}}], "sead": 1}
        validated(Recipe, values, "here")


@pytest.mark.parametrize("content", ["name: [", "just words", "\x00\x01", "- a\n- b"])
def test_a_file_that_is_not_a_recipe(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)


def test_a_stage_starts_from_the_model_before_it_or_the_one_it_names() -> None:
    recipe = load_recipe("smoke", ["stages.expert_iteration=null"])
    assert recipe.model_stages == ["sft", "cross_load", "crpo"]
    assert [recipe.start_of(name) for name in ("sft", "cross_load", "pairs", "crpo")] == [
        None, "sft", "cross_load", "cross_load"
    ]  # fmt: skip
    assert recipe.pairs_of("crpo") == "pairs" and recipe.pairs_of("sft") is None
    assert load_recipe("smoke", ["stages.crpo.start_from=sft"]).start_of("crpo") == "sft"


TRAIN = "train: {steps: 1, learning_rate: 1}"


def test_stages_come_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    kinds = ("expert_iteration", "expert_iteration", "pairs", "nft", "sft", "crpo")
    extra = {"pairs": "captions: 64"}
    path.write_text("name: r\nstages:\n" + "".join(f"- {{kind: {k}, {extra.get(k, TRAIN)}}}\n" for k in kinds))
    recipe = load_recipe(str(path))
    assert [stage.name for stage in recipe.stages] == [
        "expert_iteration", "expert_iteration-2", "pairs", "nft", "sft", "crpo"
    ]  # fmt: skip
    assert recipe.start_of("expert_iteration-2") == "expert_iteration" and recipe.start_of("crpo") == "sft"
    assert recipe.pairs_of("nft") == recipe.pairs_of("crpo") == "pairs"
    first, second = (stage.model_dump()["seed"] for stage in recipe.stages[:2])
    assert second - first > 10_000  # other captions and clips
    own = load_recipe(str(path), [f"stages.expert_iteration-2.seed={first}"])
    assert own.stages[1].model_dump()["seed"] == first
    changed = load_recipe(str(path), ["stages.expert_iteration-2.keep=3", "stages.expert_iteration=null"])
    assert changed.stages[0].model_dump()["keep"] == 3 and changed.stages[0].name == "expert_iteration"
    added = load_recipe(str(path), ["stages.cross_load={injection: film}"])
    assert added.model_stages[-1] == "cross_load"


STAGE = """
from plaudit.stages import Stage, StageSettings

class ShrinkSettings(StageSettings):
    factor: float = 0.5

class Shrink(Stage):
    Settings = ShrinkSettings
    uses = ()

    def run(self, settings, inputs, folder):
        model = inputs.model()
        for parameter in model.backbone.parameters():
            parameter.data.mul_(settings.factor)
        return model
"""


def test_a_stage_in_a_file_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "shrink.py").write_text(STAGE)
    (tmp_path / "r.yaml").write_text(f"name: r\nstages: [{{kind: sft, {TRAIN}}}, {{kind: 'shrink.py:Shrink'}}]\n")
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe.model_stages == ["sft", "Shrink"] and recipe.stage("Shrink").kind == f"{tmp_path}/shrink.py:Shrink"
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "copy.yaml")) == recipe
    with pytest.raises(RecipeError, match=r"stages\.Shrink: unknown key facter; did you mean factor"):
        load_recipe(str(tmp_path / "r.yaml"), ["stages.Shrink.facter=1"])
    with pytest.raises(RecipeError, match="the file defines no Shrunk; did you mean Shrink"):
        load_recipe(str(tmp_path / "r.yaml"), ["stages.Shrink.kind=shrink.py:Shrunk"])
    keys = set()
    for name in ("mul_", "div_"):
        (tmp_path / "shrink.py").write_text(STAGE.replace("mul_", name))
        keys.add(next(step for step in steps(recipe) if step.name == "Shrink").origin({}).key)
    assert len(keys) == 2


def test_no_precision_is_no_precision_in_yaml_too() -> None:
    plain = load_recipe("smoke", ["precision=no", "sampling.precision=no"])
    assert plain.precision == plain.sampling.precision == "no"
    with pytest.raises(RecipeError, match="precision"):
        load_recipe("smoke", ["precision=yes"])

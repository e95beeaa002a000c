"""Cost estimates of runs, against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.cli.main import app
from plaudit.errors import RecipeError
from plaudit.pipeline.estimate import (
    CostEstimate,
    StepCost,
    UnitCosts,
    _TrainingPass,
    checked_estimate,
)
from plaudit.pipeline.requirements import requirements_of
from plaudit.pipeline.stage_plans import pass_in_words, stage_plans
from plaudit.recipe import load_recipe
from plaudit.training.loop import learning_rate
from plaudit.training.lora import add_adapters
from plaudit.training.settings import LoraSettings, TrainSettings
from tests.backbone.tiny import tiny_model


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing was fetched, and a folder without data."""
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def test_the_papers_work_without_its_data_or_models() -> None:
    plan = checked_estimate(CostEstimate(load_recipe("paper")))
    assert plan.frames == 430 and plan.clips is None
    forward, works = plan.network.forward_flops(430), plan.works()
    assert works["sft"].training == 3 * 200_000 * 64 * forward
    experts = works["expert_iteration"]
    assert experts.training == 3 * 35_000 * 64 * forward
    assert experts.sampling == 630 * 25 * 2 * forward
    assert (experts.to_decode, experts.to_embed, experts.to_encode) == (630, 630, 64)
    assert works["pairs"].sampling == 8_000 * 25 * 2 * forward
    # Winner and loser, each forward and back in the network and forward in the reference.
    assert works["crpo"].training == 8 * 5_000 * 8 * forward
    parameters = sum(p.numel() for p in plan.network.parameters())
    # Weights, gradients, two moments, two averages, four bytes each.
    assert works["sft"].memory == 6 * 4 * parameters and works["sft"].clips == 32
    assert works["crpo"].memory == 7 * 4 * parameters and works["crpo"].clips == 16
    assert works["sweep-crpo"].sampling == 700 * 25 * 2 * forward
    assert works["clips-unscored"].sampling == 100 * 25 * 2 * forward


def test_rounds_solvers_and_guidance_are_counted() -> None:
    changes = ["stages.expert_iteration.rounds=3", "sampling.solver=heun", "sampling.guidance.weight=1"]
    plain, changed = CostEstimate(load_recipe("smoke")), CostEstimate(load_recipe("smoke", changes))
    one, three = (plan.works()["expert_iteration"] for plan in (plain, changed))
    assert three.training == 3 * one.training and three.to_decode == 48
    assert three.sampling == 3 * one.sampling  # two evaluations a step, but one pass in each


def test_candidates_without_guidance_take_half_the_passes() -> None:
    changes = ["stages.expert_iteration.guidance.weight=1"]
    plain, unguided = (CostEstimate(load_recipe("smoke", more)).works()["expert_iteration"] for more in ([], changes))
    assert unguided.sampling == plain.sampling / 2 and unguided.training == plain.training


def test_adapter_parameters_are_counted_exactly() -> None:
    pytest.importorskip("peft", reason="the finetune extra is not installed")
    plan = CostEstimate(load_recipe("smoke", ["stages.sft.train.lora={rank: 4}"]))
    work, without = plan.works()["sft"], CostEstimate(load_recipe("smoke")).works()["sft"]
    assert work.training == without.training * 2 / 3
    network = FluxAudio(plan.backbone)
    add_adapters(network, LoraSettings(rank=4), 0)
    every = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert work.memory == 4 * (every + 5 * trained)


def test_prices_add_up_and_what_has_none_is_named() -> None:
    unit_costs = UnitCosts(
        training=100.0, sampling=50.0, encode=2.0, decode=None, embed=0.5, activations=10.0, cast=7.0
    )
    work = StepCost("", training=1000, sampling=500, to_encode=3, to_decode=4, to_embed=2, memory=100, clips=8)
    assert unit_costs.seconds(work) == 10 + 10 + 6 + 1
    assert unit_costs.without_cost(work) == ["decoding"]
    assert unit_costs.memory(work) == 100 + 7 + 80
    assert unit_costs.memory(StepCost("")) == 0


def test_what_a_pass_keeps_is_what_its_clips_take_and_less_where_blocks_are_computed_twice() -> None:
    torch.manual_seed(0)
    step = _TrainingPass(tiny_model("global_adaln", seed=0), 40, torch.float32, twice=False)
    one, two, three = (step.activation_bytes(clips) for clips in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=0.02) and one > 0
    twice = _TrainingPass(tiny_model("global_adaln", seed=0), 40, torch.float32, twice=True)
    assert twice.activation_bytes(2) - twice.activation_bytes(1) < 0.6 * (two - one)


def test_needs_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    found = {need.what: need for need in requirements_of(load_recipe("paper"))}
    released = {"codec", "text encoder", "CLAP", "audio embedder", "reward"}
    evaluation = {"prompts", "reference", "baseline"}
    assert found.keys() == released | evaluation | {"shard set", "package"} and found["package"].name == "demucs"
    assert not any(found[what].here for what in (*released, *evaluation, "shard set"))
    assert found["codec"].otherwise == "plaudit models fetch codec-44k"
    assert not requirements_of(load_recipe("smoke"))
    file = tmp_path / "pairs.jsonl"
    change = [f"stages.pairs.read_from={file}"]
    assert [need.here for need in requirements_of(load_recipe("smoke", change))] == [False]
    file.write_text('{"caption": "x", "winner": "a.wav", "loser": "b.wav"}\n')
    assert [need.here for need in requirements_of(load_recipe("smoke", change))] == [True]
    assert "package" in {need.what for need in requirements_of(load_recipe("lora"))}


def test_every_shipped_recipe_can_be_planned() -> None:
    synthetic = ("injections", "nft", "synthetic-base", "synthetic-unguided")
    for name in ("paper", "paper-l", "data-free-expert", "lora", "folder", *synthetic):
        works = checked_estimate(CostEstimate(load_recipe(name))).works()
        assert works["sft"].what, name
    assert CostEstimate(load_recipe("lora")).works()["shards"].unknown == "the corpus is not here"


def test_unknown_sizes_are_an_error_of_one_line() -> None:
    recipe = load_recipe("smoke", ["models.codec=nowhere"])
    with pytest.raises(RecipeError, match="depend on its codec: no codec 'nowhere'"):
        checked_estimate(CostEstimate(recipe))


def test_the_command_prints_a_plan_and_makes_nothing(tmp_path: Path) -> None:
    words = ["run", "smoke", "--dry-run", "--json", "--only", "pairs", "-o", str(tmp_path / "r")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [step["step"] for step in found["steps"]][-2:] == ["cross_load", "pairs"]
    assert found["hours"] == pytest.approx(sum(step["hours"] for step in found["steps"])) and found["hours"] > 0
    assert [stage["stage"] for stage in found["stages"]] == ["sft", "expert_iteration", "cross_load", "pairs", "crpo"]
    assert found["measured"]["training_flops"] > 0 and found["measured"]["decode_seconds"] > 0
    assert not (tmp_path / "r").exists()
    reporter = CliRunner().invoke(app, ["run", "smoke", "--dry-run"])
    assert reporter.exit_code == 0 and "about" in reporter.stdout and "GFLOP/s in training" in reporter.stdout


def test_each_stage_says_its_published_numbers_and_what_it_lacks() -> None:
    plans = {plan.stage: plan for plan in stage_plans(load_recipe("paper"))}
    assert list(plans) == ["sft", "expert_iteration", "cross_load", "pairs", "crpo"]
    rest = "weight decay 1e-06, gradients up to 1, score_dropout 0.1, text_dropout 0.1, raw weights"
    assert plans["sft"].settings == [
        "train: 200,000 updates of 32 x 2, rate 0.0001, warm-up 1,000, x0.1 at 161,000 and 181,000, "
        f"AdamW eps 1e-06, {rest}"
    ]
    own, train, polish = plans["expert_iteration"].settings
    assert own == (
        "candidates 630, candidates_per_prompt 1, keep 64, oversample 5, rounds 1, criterion blend, "
        "reward_prompt caption, include_corpus yes, score 2, seed 1,000"
    )
    assert train == f"train: 30,000 updates of 32 x 2, rate 1e-05, AdamW eps 1e-06, {rest}"
    assert polish == f"fine_tune: 5,000 updates of 32 x 2, rate 1e-06, AdamW eps 1e-06, {rest}"
    assert plans["crpo"].settings == [
        "beta 2000, lambda_fm 1",
        f"train: 5,000 updates of 8, rate 1e-06, warm-up 100, AdamW eps 1e-06, {rest}",
    ]
    parts = ["codec-44k", "text-t5-clap"]
    assert plans["cross_load"].lacks == plans["crpo"].lacks == parts
    (shards,) = [need.name for need in requirements_of(load_recipe("paper")) if need.what == "shard set"]
    (reward,) = [need.name for need in requirements_of(load_recipe("paper")) if need.what == "reward"]
    assert plans["sft"].lacks == [shards, *parts]
    assert plans["pairs"].lacks == plans["expert_iteration"].lacks == [
        shards, *parts, "clap-music", "mert-330m", reward,
    ]  # fmt: skip
    study = {plan.stage: plan for plan in stage_plans(load_recipe("data-free-expert"))}
    assert "fluxaudio-s" in study["sft"].lacks and "song-describer/prompts.csv" in study["expert_iteration"].lacks
    assert study["expert_iteration"].settings[1].endswith("EMA of decay 0.999")


def test_nothing_is_lacking_where_everything_comes_with_the_package() -> None:
    assert [plan.lacks for plan in stage_plans(load_recipe("smoke"))] == [[]] * 5
    adapters = stage_plans(load_recipe("lora"))
    assert "adapters of rank 16" in adapters[0].settings[0] and adapters[0].settings[0].endswith("EMA 0.05")


def test_a_decay_that_is_never_reached_is_not_announced() -> None:
    late = TrainSettings(steps=40, learning_rate=1e-3, warmup=10, decay_at=(0.7, 0.8, 0.9))
    assert "x0.1 at 38, " in pass_in_words(late)
    assert [learning_rate(step, late) for step in (37, 38, 39)] == pytest.approx([1e-3, 1e-4, 1e-4])

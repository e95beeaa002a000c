"""The example of a backbone goes through config, training, loading and generation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plaudit import loading, run
from plaudit.backbone import build_backbone, cross_load, initialize
from plaudit.backbone.base import read_config
from plaudit.errors import ModelError, RecipeError
from plaudit.generate.model import read_model_config
from plaudit.generate.settings import Execution, PieceSettings
from plaudit.pipeline.estimate import CostEstimate
from plaudit.pipeline.models import backbone_config
from plaudit.pipeline.steps import steps
from plaudit.recipe import Recipe, load_recipe
from tests.backbone.tiny import inputs
from tests.examples.small import EXAMPLES, SETTINGS, saved_and_loaded, train

NAME = f"{EXAMPLES / 'backbone.py'}:ConvNet"
VALUES = {
    "kind": NAME, "latent_dim": 5, "text_dim": 12, "text_c_dim": 10, "text_length": 7, "hidden_dim": 24, "layers": 3,
    "injection": "input_add", "score_hidden": 16,
}  # fmt: skip


def test_its_config_survives_being_written_and_bad_values_are_named() -> None:
    config = read_config(VALUES)
    assert read_config(config.to_dict()) == config and config.to_dict()["kind"] == NAME
    for changes, says in (({"layers": 0}, "layers"), ({"depth": 3}, "unknown settings depth"), ({"kind": 3}, "kind")):
        with pytest.raises(ModelError, match=says):
            read_config(VALUES | changes)


def test_it_trains_and_the_loaded_model_generates(tmp_path: Path) -> None:
    model = build_backbone(read_config(VALUES))
    initialize(model, 0)
    losses = train(model)
    assert losses[-1] < 0.8 * losses[0]
    music = saved_and_loaded(tmp_path / "model", model)
    assert music.config.backbone == model.config
    pair = music.generate(["a", "b"], [1, 2], SETTINGS)
    assert pair.shape == (2, 1300) and torch.isfinite(pair).all()
    torch.testing.assert_close(music.generate(["b"], [2], SETTINGS, Execution(batch=1)), pair[1:], atol=1e-5, rtol=0)
    longer = SETTINGS.changed(piece=PieceSettings(seconds=3.0), precision="bf16")
    assert music.generate("a", 1, longer, Execution(memory=0.1)).shape == (1, 3000)


def recipe(tmp_path: Path, **changes: object) -> Recipe:
    """The smoke recipe with the example as its network."""
    values = load_recipe("smoke").model_dump(mode="json")
    values["backbone"] |= {"kind": NAME, "overrides": {"hidden_dim": 16, "layers": 2}, **changes}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(values))
    return load_recipe(str(path))


def test_a_recipe_names_it_and_its_cost_is_estimated(tmp_path: Path) -> None:
    backbone = recipe(tmp_path).backbone
    codec, text = loading.CODECS.load("synthetic"), loading.TEXT_ENCODERS.load("synthetic")
    config = backbone_config(backbone, codec, text)
    assert (config.kind, config.hidden_dim, config.latent_dim) == (NAME, 16, codec.latent_dim)
    assert CostEstimate(recipe(tmp_path)).network.forward_flops(10) > 0
    with pytest.raises(RecipeError, match="no file"):
        recipe(tmp_path, kind="nowhere.py:ConvNet")
    with pytest.raises(RecipeError, match="preset fluxaudio-s-44k is of kind fluxaudio"):
        recipe(tmp_path, preset="fluxaudio-s-44k")


@pytest.mark.parametrize("part", ["backbone", "injection"])
def test_another_version_of_the_code_makes_its_step_stale(tmp_path: Path, part: str) -> None:
    file = tmp_path / "part.py"
    source = (EXAMPLES / f"{part}.py").read_text()
    name = f"{file}:{'ConvNet' if part == 'backbone' else 'BlockwiseAdd'}"
    changes: dict[str, object] = {"kind": name} if part == "backbone" else {"kind": "fluxaudio", "injection": name}
    digests = []
    for text in (source, source + "\n# changed\n"):
        file.write_text(text)
        changed = recipe(tmp_path, **changes, overrides={"hidden_dim": 16} if part == "backbone" else {})
        step = next(step for step in steps(changed) if step.name == "sft")
        digests.append(step.external[f"backbone.{'kind' if part == 'backbone' else 'injection'}"])
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_a_run_trains_it(tmp_path: Path) -> None:
    run(recipe(tmp_path), output=tmp_path / "run", only="sft")
    assert read_model_config(tmp_path / "run" / "sft").backbone.kind == NAME


def test_it_takes_the_score_by_any_injection_that_fits() -> None:
    model = build_backbone(read_config(VALUES))
    initialize(model, 0)
    other, report = cross_load(model.state_dict(), replace(model.config, injection="global_adaln"))
    assert report.new == report.unused == []
    latents, text, t = inputs(2)
    assert torch.equal(other(latents, text, t, torch.tensor([1.0, torch.nan])), model(latents, text, t))


def test_latents_shared_by_several_conditions_give_the_same_velocity() -> None:
    model = build_backbone(read_config(VALUES))
    train(model, steps=3)
    latents, text, t = inputs(2)
    rows = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        together = model.velocity(latents, model.conditions(text.rows(rows)), t[:1])
        apart = model(latents.repeat(2, 1, 1), text.rows(rows), t[:1].expand(4))
    torch.testing.assert_close(together, apart)

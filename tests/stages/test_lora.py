"""Adapters: nothing at first, alone in being trained, and inside plain weights at the end."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.errors import RecipeError
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.storage import load_tensors
from plaudit.training.data import Source, TrainingSet
from plaudit.training.loop import train
from plaudit.training.lora import adapted_layers, add_adapters, merge_adapters, without_adapters
from plaudit.training.settings import LoraSettings
from plaudit.types import TextFeatures
from tests.backbone.tiny import tiny_model, wake
from tests.stages.noise import tiny_shards

pytest.importorskip("peft", reason="the finetune extra is not installed")


def velocity(model: FluxAudio) -> torch.Tensor:
    config, generator = model.config, torch.Generator().manual_seed(1)
    text = TextFeatures(
        torch.randn(2, config.text_length, config.text_dim, generator=generator),
        torch.randn(2, config.text_c_dim, generator=generator),
    )
    latents = torch.randn(2, 6, config.latent_dim, generator=generator)
    with torch.no_grad():
        return model(latents, text, torch.tensor([0.3, 0.8]), torch.tensor([0.5, float("nan")]))


def test_adapters_begin_at_nothing_and_end_inside_plain_weights(tmp_path: Path) -> None:
    model = wake(tiny_model("global_adaln", seed=3))
    before, names, untouched = copy.deepcopy(model.state_dict()), set(model.state_dict()), velocity(model)
    adapters = add_adapters(model, LoraSettings(rank=2, alpha=4, targets=("qkv",)), seed=0)
    assert torch.equal(velocity(model), untouched)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or name.startswith("score.") for name in trained)
    assert any(name.startswith("score.") for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    adapted = velocity(model)
    assert torch.allclose(velocity(without_adapters(model)), adapted, atol=1e-5)
    assert not torch.allclose(adapted, untouched)
    merge_adapters(adapters, model, tmp_path / "adapters")
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())
    assert torch.allclose(velocity(model), adapted, atol=1e-5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.endswith("qkv.weight") for name in changed)
    kept = load_tensors(tmp_path / "adapters" / "adapter_model.safetensors")
    # W + alpha / rank B A, from the files alone
    name = "joint_blocks.0.audio.qkv"
    a, b = (kept[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    assert torch.allclose(model.state_dict()[f"{name}.weight"], before[f"{name}.weight"] + 4 / 2 * b @ a, atol=1e-6)


def test_adapters_hang_on_the_seed_and_leave_the_global_generator_alone() -> None:
    models = [tiny_model("global_adaln", seed=3) for _ in range(3)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_adapters(model, LoraSettings(rank=2), seed)
    assert torch.equal(torch.get_rng_state(), state)
    one, same, other = (model.joint_blocks[0].audio.qkv.lora_A["default"].weight for model in models)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_training_adapters_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = tiny_shards(tmp_path / "shards", clips=20)
    rows = data.rows("train")
    settings = FlowTrainSettings(steps=6, learning_rate=1e-2, batch=4, checkpoint_every=2, lora=LoraSettings(rank=2))
    assert settings.lora is not None

    def run(folder: Path, stop: int | None = None) -> dict[str, torch.Tensor]:
        model = wake(tiny_model("global_adaln", seed=3))
        adapters = add_adapters(model, settings.lora, settings.seed)
        objective = SftObjective(model, TrainingSet([Source(data, rows, data.rewards[rows])], 0), settings)

        def progress(done: int, total: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        train(model, objective, settings, folder, Accelerator(cpu=True), progress).copy_to(model)
        merge_adapters(adapters, model, folder / "adapters")
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=5)
    again = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_an_unknown_layer_is_named_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"'q_proj'; there are down, gate_up, modulation, out, qkv"):
        adapted_layers(tiny_model("global_adaln", seed=3), LoraSettings(targets=("qkv", "q_proj")))

"""Averages reconstructed from a run's folder equal those tracked in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plaudit.backbone.ema import PostHocEMA
from plaudit.cli.main import app
from plaudit.errors import ModelError
from plaudit.generate.model import ModelConfig
from plaudit.models.inspecting import average_folder
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.storage import load_tensors, save_module
from plaudit.training.data import Source, TrainingSet
from plaudit.training.distributed import accelerator_for
from plaudit.training.loop import train
from plaudit.training.settings import LoopSettings
from tests.backbone.tiny import tiny_model
from tests.stages.noise import tiny_shards


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A stage's folder with snapshots, and the average of length 0.08 that was kept beside the training."""
    place = tmp_path_factory.mktemp("run")
    model, folder = tiny_model("global_adaln"), place / "sft"
    data = tiny_shards(place / "shards")
    rows = data.rows("train")
    settings = FlowTrainSettings(steps=145, learning_rate=1e-3, batch=4, warmup=5)
    objective = SftObjective(model, TrainingSet([Source(data, rows, data.rewards[rows])], 0), settings)
    direct = PostHocEMA(model, (0.08,))

    def follow(done: int, total: int) -> None:
        direct.update(done)

    ema = train(model, objective, settings, folder, accelerator_for("no"), follow, LoopSettings(snapshot_every=10))
    ema.copy_to(model)
    save_module(folder, model, ModelConfig(model.config, "c", "t", 1.0, "none", {"stage": "sft"}).to_dict())
    return folder, {name: value.clone() for name, value in direct.weights(0.08).items()}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return sum(float((a[name] - b[name]).square().sum()) for name in b) ** 0.5


def test_another_length_from_the_snapshots_is_the_direct_average(
    trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, direct = trained
    assert len(list((folder / "snapshots").iterdir())) == 2 * 15  # every 10 updates, and the last
    done = CliRunner().invoke(
        app, ["models", "ema", str(folder), "--sigma-rel", "0.08", "-o", str(tmp_path / "provenance"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["step"] == 145
    built, kept = (load_tensors(path / "model.safetensors") for path in (tmp_path / "provenance", folder))
    assert distance(built, direct) < 0.05 * distance(kept, direct)  # far nearer than the deployed average, of 0.05
    config = json.loads((tmp_path / "provenance" / "config.json").read_text())
    assert config["provenance"] == {"stage": "sft", "ema": {"sigma_rel": 0.08, "step": 145, "snapshots": 30}}


def test_a_stored_ema_length_is_reproduced(trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    folder, _ = trained
    average_folder(folder, 0.05, tmp_path / "provenance")
    built, kept = (load_tensors(path / "model.safetensors") for path in (tmp_path / "provenance", folder))
    assert all(torch.allclose(built[name], kept[name], atol=1e-5) for name in kept)


def test_averages_that_cannot_be_built_fail(trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    folder, _ = trained
    with pytest.raises(ModelError, match="exists already"):
        average_folder(folder, 0.08, folder)
    with pytest.raises(ModelError, match="outside the snapshots"):
        average_folder(folder, 0.08, tmp_path / "provenance", step=146)
    whole = tmp_path / "run"
    whole.mkdir()
    (whole / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ModelError, match="snapshot_every"):
        average_folder(whole, 0.08, tmp_path / "provenance")
    (whole / "round-1" / "snapshots").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"there are some in .*round-1"):
        average_folder(whole, 0.08, tmp_path / "provenance")

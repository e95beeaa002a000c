"""The loop: schedules known by hand, resuming to the same weights, stopping when the loss is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from plaudit.errors import ModelError, RunError
from plaudit.stages.data import generator_for, permutation
from plaudit.stages.settings import TrainSettings
from plaudit.stages.training import learning_rate, train


def quadratic(network: nn.Module, index: int) -> dict[str, Tensor]:
    """A noisy regression whose batch depends on the index alone."""
    x = torch.randn(8, 4, generator=generator_for(0, index))
    return {"loss": (network(x) - x.sum(1, keepdim=True)).square().mean()}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))


def settings(**changes: object) -> TrainSettings:
    plain: dict[str, object] = {"steps": 40, "learning_rate": 0.01, "batch": 8, "checkpoint_every": 15}
    return TrainSettings.model_validate(plain | changes)


def run(folder: Path, chosen: TrainSettings, loss=quadratic) -> tuple[nn.Module, dict[str, Tensor]]:
    model = network()
    ema = train(model, loss, chosen, folder, Accelerator(cpu=True), lambda done, total: None)
    return model, ema.weights()


def test_the_rate_warms_up_and_falls_by_ten_twice() -> None:
    chosen = settings(steps=100, learning_rate=1.0, warmup=10, decay_at=(0.8, 0.9))
    assert [learning_rate(s, chosen) for s in (0, 4, 9, 50, 79)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [learning_rate(s, chosen) for s in (80, 89, 90, 99)] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    run(tmp_path, settings(steps=200))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10, 201, 10))
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert {"learning_rate", "gradient_norm", "clips_per_second"} <= rows[0].keys()


def test_resumed_anywhere_it_ends_with_the_same_weights_and_averages(tmp_path: Path) -> None:
    whole, averages = run(tmp_path / "whole", settings())

    def interrupted(model: nn.Module, index: int) -> dict[str, Tensor]:
        if index == 33:
            raise KeyboardInterrupt
        return quadratic(model, index)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings(), interrupted)
    resumed, resumed_averages = run(tmp_path / "cut", settings())
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(averages[name], resumed_averages[name]) for name in averages)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps[0] == steps[1]


def test_accumulating_is_the_mean_of_the_parts(tmp_path: Path) -> None:
    chosen = settings(steps=1, accumulate=2, clip=1e9, weight_decay=0)
    seen: list[int] = []

    def loss(model: nn.Module, index: int) -> dict[str, Tensor]:
        seen.append(index)
        return quadratic(model, index)

    run(tmp_path, chosen, loss)
    assert seen == [0, 1]
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    expected = sum(float(quadratic(network(), i)["loss"].detach()) for i in (0, 1)) / 2
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    def lost(model: nn.Module, index: int) -> dict[str, Tensor]:
        return {"loss": quadratic(model, index)["loss"] * (float("nan") if index == 3 else 1.0)}

    with pytest.raises(RunError, match="step 4"):
        run(tmp_path, settings(), lost)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    def interrupted(model: nn.Module, index: int) -> dict[str, Tensor]:
        if index == 20:
            raise KeyboardInterrupt
        return quadratic(model, index)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings(), interrupted)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(ModelError, match="delete it"):
        run(tmp_path, settings())


def test_epochs_are_permutations_that_differ() -> None:
    first, second = permutation(7, 0, 50), permutation(7, 1, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert generator_for(1, 2).initial_seed() != generator_for(1, 3).initial_seed()

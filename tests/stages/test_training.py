"""The loop: schedules known by hand, resuming to the same weights, stopping when the loss is lost."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from plaudit.backbone.ema import ema_exponent
from plaudit.errors import ModelError, Preempted, RunError
from plaudit.recipe import load_recipe
from plaudit.storage import save_checkpoint
from plaudit.training.data import generator_for
from plaudit.training.distributed import accelerator_for
from plaudit.training.loop import Callback, Inputs, learning_rate, replay, train
from plaudit.training.settings import LoopSettings, TrainSettings


class Quadratic:
    """A noisy regression; `hook(index)` is called for every batch that is drawn, and may spoil it."""

    def __init__(self, hook: Callable[[int], float | None] = lambda index: None) -> None:
        self.hook = hook

    def draw(self, index: int, part: slice) -> Inputs:
        x = torch.randn(8, 4, generator=generator_for(0, index))[part]
        factor = self.hook(index)
        return {"x": x, "factor": torch.full((len(x),), 1.0 if factor is None else factor)}

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        x = inputs["x"]
        return {"loss": ((network(x) - x.sum(1, keepdim=True)).square().mean(1) * inputs["factor"]).mean()}


def stop_at(index: int) -> Quadratic:
    """As if the process were interrupted while it draws a batch."""

    def hook(number: int) -> None:
        if number == index:
            raise KeyboardInterrupt

    return Quadratic(hook)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))


def settings(**changes: object) -> TrainSettings:
    plain: dict[str, object] = {"steps": 40, "learning_rate": 0.01, "batch": 8, "checkpoint_every": 15}
    return TrainSettings.model_validate(plain | changes)


def run(
    folder: Path,
    chosen: TrainSettings,
    objective: Quadratic | None = None,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    callbacks: Sequence[Callback] = (),
    **loop: object,
) -> tuple[nn.Module, dict[str, Tensor]]:
    model = model or network()
    how = LoopSettings.model_validate(loop)
    ema = train(model, objective or Quadratic(), chosen, folder, Accelerator(cpu=True), progress, how, callbacks)
    return model, ema.weights()


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rate_warms_up_and_falls_by_ten_twice() -> None:
    chosen = settings(steps=100, learning_rate=1.0, warmup=10, decay_at=(0.8, 0.9))
    assert [learning_rate(s, chosen) for s in (0, 4, 9, 10)] == pytest.approx([1 / 11, 5 / 11, 10 / 11, 1])
    assert [learning_rate(s, chosen) for s in (89, 90, 99)] == pytest.approx([1, 0.1, 0.1])  # 100 would be the second


def test_the_published_rates() -> None:
    chosen = load_recipe("paper").stage("sft").train
    at = [0, 999, 1000, 160_999, 161_000, 180_999, 181_000, 199_999]
    expected = [1e-4 / 1001, 1e-4 * 1000 / 1001, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]
    assert [learning_rate(s, chosen) for s in at] == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 60), st.integers(0, 20))
def test_the_rates_are_those_of_pytorchs_schedulers_one_after_the_other(steps: int, warmup: int) -> None:
    """As in the published code: a warm-up, then steps that are counted from its end."""
    chosen = settings(steps=steps, learning_rate=1.0, warmup=warmup, decay_at=(0.8, 0.9))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    milestones = [math.ceil(0.8 * steps), math.ceil(0.9 * steps)]
    decay = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.1)
    scheduler: torch.optim.lr_scheduler.LRScheduler = decay
    if warmup:
        warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / (warmup + 1))
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, decay], [warmup])
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():  # SequentialLR calls its members with a step, which is deprecated
            warnings.simplefilter("ignore")
            scheduler.step()
    assert [learning_rate(s, chosen) for s in range(steps)] == pytest.approx(expected)


def test_adams_epsilon_is_the_settings(tmp_path: Path) -> None:
    """The first update of a weight is rate x g / (|g| + eps): with a large epsilon, rate x g / eps."""
    before = [p.detach().clone() for p in network().parameters()]
    one = settings(steps=1, learning_rate=0.5, weight_decay=0, max_grad_norm=1e9)
    for name, eps in (("usual", 1e-8), ("large", 1e4)):
        model, _ = run(tmp_path / name, one.model_copy(update={"adam_eps": eps}))
        moves = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).abs()
        assert moves.max() == pytest.approx(0.5, rel=1e-4) if eps < 1 else moves.max() < 1e-2
        assert moves.max() > 0


def conditioned() -> nn.Module:
    """A network with a part where a backbone has its score injection."""
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(body=nn.Linear(4, 8), score=nn.Linear(8, 8), head=nn.Linear(8, 1)))


def test_the_injection_is_trained_at_its_own_rate(tmp_path: Path) -> None:
    """The first update of a weight is the rate in size, whatever its gradient."""
    one = settings(steps=1, learning_rate=1e-3, weight_decay=0, max_grad_norm=1e9, injection_lr_scale=20)
    before = {name: p.detach().clone() for name, p in conditioned().named_parameters()}
    model, _ = run(tmp_path, one, model=conditioned())
    for name, p in model.named_parameters():
        moved = (p.detach() - before[name]).abs().max().item()
        assert moved == pytest.approx(20e-3 if name.startswith("score.") else 1e-3, rel=1e-3), name


def test_two_rates_resume_to_the_same_weights(tmp_path: Path) -> None:
    chosen = settings(injection_lr_scale=5, steps=6, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", chosen, stop_at(5), model=conditioned())
    resumed = run(tmp_path / "stopped", chosen, model=conditioned())
    assert_equal(resumed, run(tmp_path / "whole", chosen, model=conditioned()))
    assert_equal(  # a network without an injection has one rate
        run(tmp_path / "plain", settings(steps=6, checkpoint_every=2)), run(tmp_path / "scaled", chosen)
    )


def test_callbacks_see_the_weights_that_the_pass_leaves(tmp_path: Path) -> None:
    model, seen = network(), {}
    for weights in ("raw", "ema"):
        model = network()

        def look(step: int, model: nn.Module = model, weights: str = weights) -> dict[str, float]:
            seen[weights] = [p.detach().clone() for p in model.parameters()]
            return {}

        _, average = run(
            tmp_path / weights, settings(weights=weights), model=model, callbacks=[Callback("x", 40, look)]
        )
        trained = list(model.parameters())
        left = trained if weights == "raw" else list(average.values())
        assert all(torch.equal(a, b) for a, b in zip(seen[weights], left, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(trained, average.values(), strict=True))


def test_an_exponential_average_is_kept_beside_those_of_relative_length_and_resumes(tmp_path: Path) -> None:
    path: list[torch.Tensor] = []
    model = network()
    chosen = settings(ema={"decay": 0.9})
    first = model[0].weight.detach().clone()

    def look(done: int, total: int) -> None:
        path.append(model[0].weight.detach().clone())

    _, average = run(tmp_path / "whole", chosen, model=model, progress=look)
    expected = 0.9 ** len(path) * first + sum(0.1 * 0.9**n * weight for n, weight in enumerate(reversed(path)))
    torch.testing.assert_close(average["0.weight"], expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", chosen, stop_at(33))
    _, again = run(tmp_path / "cut", chosen)
    assert all(torch.equal(average[name], again[name]) for name in average)


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    run(tmp_path, settings(steps=200))
    found = rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(10, 201, 10))
    assert found[-1]["loss"] < 0.1 * found[0]["loss"]
    assert {"learning_rate", "gradient_norm", "clips_per_second", "data_wait", "memory_gb"} <= found[0].keys()
    assert 0 <= found[0]["data_wait"] <= 1


def test_utilization_is_speed_times_arithmetic_over_the_peak(tmp_path: Path) -> None:
    train(
        network(), Quadratic(), settings(steps=10), tmp_path, Accelerator(cpu=True), lambda done, total: None,
        LoopSettings(peak_tflops=0.001), flops=10**6,
    )  # fmt: skip
    row = rows(tmp_path / "metrics.jsonl")[0]
    assert row["mfu"] == pytest.approx(row["clips_per_second"] * 1e6 / 1e9, abs=1e-3)


def assert_equal(ours: tuple[nn.Module, dict[str, Tensor]], theirs: tuple[nn.Module, dict[str, Tensor]]) -> None:
    for a, b in zip(ours[0].parameters(), theirs[0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(ours[1][name], theirs[1][name]) for name in ours[1])


def test_resumed_anywhere_it_ends_with_the_same_weights_and_averages(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", settings())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings(), stop_at(33))
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["00000030.pt"]
    assert_equal(run(tmp_path / "cut", settings()), whole)
    steps = [[row["step"] for row in rows(tmp_path / name / "metrics.jsonl")] for name in ("whole", "cut")]
    assert steps[0] == steps[1]


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, settings(checkpoint_every=6), keep_checkpoints=3)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["00000024.pt", "00000030.pt", "00000036.pt"]


def test_accumulating_is_the_mean_of_the_parts(tmp_path: Path) -> None:
    seen: list[int] = []
    run(tmp_path, settings(steps=1, accumulate=2, max_grad_norm=1e9, weight_decay=0), Quadratic(seen.append))
    assert seen == [0, 1]
    row = rows(tmp_path / "metrics.jsonl")[0]
    drawn = [Quadratic().draw(index, slice(None)) for index in seen]
    expected = sum(Quadratic().loss(network(), inputs)["loss"].item() for inputs in drawn)
    assert row["loss"] == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.parametrize("factor, reason", [(float("nan"), "became nan"), (1e6, "jumped from")])
def test_a_lost_loss_stops_training_and_can_be_replayed(tmp_path: Path, factor: float, reason: str) -> None:
    spoilt = Quadratic(lambda index: factor if index == 21 else None)
    with pytest.raises(RunError, match=f"{reason}.* at step 11; see .*failure, and lower"):
        run(tmp_path, settings(accumulate=2), spoilt)
    before, _ = run(tmp_path / "before", settings(accumulate=2, steps=10))
    again, kept = network(), json.loads((tmp_path / "failure" / "failure.json").read_text())
    values = replay(again, Quadratic(), tmp_path)
    for a, b in zip(again.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)  # the weights are those from before the update
    assert list(values) == ["batch-00000020-0000", "batch-00000021-0000"]
    found = (values["batch-00000020-0000"]["loss"] + values["batch-00000021-0000"]["loss"]) / 2
    told = kept["values"]["loss"]  # JSON has no NaN
    assert found == pytest.approx(float("nan") if told is None else told, rel=1e-5, nan_ok=True)
    with pytest.raises(ModelError, match="holds no failure"):
        replay(again, Quadratic(), tmp_path / "before")


def test_sigterm_finishes_the_update_and_checkpoints(tmp_path: Path) -> None:
    def preempt(done: int, total: int) -> None:
        if done == 17:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match=r"after update 18 of 40; run it again"):
        run(tmp_path / "cut", settings(), progress=preempt)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["00000018.pt"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_equal(run(tmp_path / "cut", settings()), run(tmp_path / "whole", settings()))


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings(), stop_at(38), keep_checkpoints=2)
    earlier, checkpoint = sorted((tmp_path / "checkpoints").iterdir())
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(ModelError, match="delete it to train from an earlier checkpoint"):
        run(tmp_path, settings())
    checkpoint.unlink()
    assert_equal(run(tmp_path, settings()), run(tmp_path / "whole", settings()))
    earlier.write_bytes(b"")


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings(), stop_at(38))
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    whole = bytearray(checkpoint.read_bytes())
    whole[whole.index(b"/data/0") + 200] ^= 1  # in the first tensor
    checkpoint.write_bytes(whole)
    with pytest.raises(ModelError, match=rf"{checkpoint.name} is damaged \(.*delete it to train from") as error:
        run(tmp_path, settings())
    assert "\n" not in str(error.value)


def test_only_what_requires_a_gradient_is_trained_averaged_and_kept(tmp_path: Path) -> None:
    model = network()
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    _, averages = run(tmp_path / "whole", settings(), model=model)
    assert torch.equal(model[0].weight, frozen)
    assert averages.keys() == {"2.weight", "2.bias"}
    state = torch.load(tmp_path / "whole" / "checkpoints" / "00000030.pt", weights_only=True)
    assert state["network"].keys() == averages.keys()
    resumed = network()
    resumed[0].requires_grad_(False)
    assert_equal(run(tmp_path / "whole", settings(), model=resumed), (model, averages))


def blocks() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.SiLU()) for _ in range(2))
    return nn.Sequential(OrderedDict(parts=InOrder(parts), out=nn.Linear(4, 1)))


def test_computing_twice_and_other_readers_change_nothing(tmp_path: Path) -> None:
    other = blocks()
    first = run(tmp_path / "plain", settings(), model=blocks())
    second = run(
        tmp_path / "other", settings(), model=other, activation_checkpointing=True, prefetch=7, loader_threads=3
    )
    assert_equal(first, second)
    assert not any("forward" in module.__dict__ for module in other.modules())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("count", [1, 2])
def test_compiled_blocks_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    with_threads(count, monkeypatch)
    (plain, _), (compiled, _) = (
        run(tmp_path / str(flag), settings(), model=blocks(), compile=flag) for flag in (False, True)
    )
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


class InOrder(nn.Module):
    def __init__(self, parts: nn.ModuleList) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def test_callbacks_see_the_average_and_leave_training_unchanged(tmp_path: Path) -> None:
    model, seen = network(), {}

    def callback(step: int) -> dict[str, float]:
        seen[step] = {name: p.detach().clone() for name, p in model.named_parameters()}
        return {"first": float(model[0].weight.detach().flatten()[0])}

    ours = run(tmp_path / "ours", settings(), model=model, callbacks=[Callback("weights", 20, callback)])
    assert_equal(ours, run(tmp_path / "plain", settings()))
    assert all(torch.equal(seen[40][name], ours[1][name]) for name in seen[40])
    assert [row["step"] for row in rows(tmp_path / "ours" / "weights.jsonl")] == [20, 40]


def test_a_write_that_fails_stops_training(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError):
        run(tmp_path, settings())


def test_a_tracker_that_is_missing_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match=r"pip install 'plaudit\[track\]'"):
        run(tmp_path, settings(), trackers=("wandb",))


def with_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(count))
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_threads_that_share_the_clips_change_nothing_but_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Three threads get 2, 3 and 3 of the 8 clips."""
    seen: set[int] = set()

    class Named(Quadratic):
        def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
            seen.add(len(inputs["x"]))
            return super().loss(network, inputs) | {"mean": inputs["x"].mean()}

    results = []
    for threads in (1, count):
        with_threads(threads, monkeypatch)
        chosen = settings(accumulate=2, max_grad_norm=0.5)
        results.append(run(tmp_path / str(threads), chosen, Named()))
        assert seen == {1: {8}, 2: {4}, 3: {2, 3}, 8: {1}}[threads]
        seen.clear()
    for a, b in zip(results[0][0].parameters(), results[1][0].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    for one, many in zip(*(rows(tmp_path / str(n) / "metrics.jsonl") for n in (1, count)), strict=True):
        for name in ("loss", "mean", "gradient_norm"):
            assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6)


def test_threads_give_the_same_bits_each_time_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_threads(3, monkeypatch)
    whole = run(tmp_path / "whole", settings())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings(), stop_at(33))
    assert_equal(run(tmp_path / "cut", settings()), whole)


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    yield accelerator_for("bf16", torch.device("cpu"))
    AcceleratorState._reset_state(reset_partial_state=True)  # Accelerate keeps one precision a process


def test_two_forward_passes_do_not_depend_on_when_other_threads_leave_autocast(
    tmp_path: Path, bf16: Accelerator
) -> None:
    """Whoever leaves autocast empties the cache of cast weights that all threads share."""

    class Contrast(Quadratic):
        def __init__(self, interrupted: bool) -> None:
            super().__init__()
            self.interrupted = interrupted

        def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
            values = super().loss(network, inputs)
            if self.interrupted:
                torch.clear_autocast_cache()
            return {"loss": values["loss"] + super().loss(network, {**inputs, "x": inputs["x"].flip(1)})["loss"]}

    results = []
    for interrupted in (False, True):
        model, folder = network(), tmp_path / str(interrupted)
        train(model, Contrast(interrupted), settings(), folder, bf16, lambda *_: None, LoopSettings(), ())
        results.append(model)
    for a, b in zip(results[0].parameters(), results[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_lost_by_one_thread_stops_training_before_the_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_threads(2, monkeypatch)

    class Spoilt(Quadratic):
        def draw(self, index: int, part: slice) -> Inputs:
            inputs = super().draw(index, part)
            if index == 20:
                inputs["factor"][-1] = torch.inf
            return inputs

    model = network()
    with pytest.raises(RunError, match="became inf at step 21"):
        run(tmp_path, settings(), Spoilt(), model=model)
    before, _ = run(tmp_path / "before", settings(steps=20))
    for a, b in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_objective_of_one_thread_is_called_by_the_main_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone(Quadratic):
        one_thread = True

        def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
            assert threading.current_thread() is threading.main_thread() and len(inputs["x"]) == 8
            return super().loss(network, inputs)

    with_threads(2, monkeypatch)
    run(tmp_path, settings(steps=2), Alone())


class Shared(nn.Module):
    """Two parameters that are only ever added, whose gradients are one tensor, one that nothing uses, and one that is
    used transposed, whose gradient is so too."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a, self.b, self.idle = (nn.Parameter(torch.randn(4, generator=generator)) for _ in range(3))
        self.matrix = nn.Parameter(torch.randn(6, 4, generator=generator))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradients_are_those_of_the_whole_batch_in_the_layout_of_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    class Linear(Quadratic):
        def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
            x = inputs["x"]
            assert isinstance(network, Shared)
            inner = (x + (network.a + network.b)) @ network.matrix.t()
            return {"loss": (inner.square().mean(1) * inputs["factor"]).mean()}

    with_threads(count, monkeypatch)
    chosen = settings(steps=3, max_grad_norm=1e9, weight_decay=0.1, learning_rate=0.1)
    model, averages = run(tmp_path, chosen, Linear(), model=Shared())
    assert isinstance(model, Shared) and torch.equal(model.idle, Shared().idle)
    plain = Shared()
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in plain.named_parameters()}
    kept = {name: p.detach().clone() for name, p in plain.named_parameters()}
    for step in range(1, 4):  # AdamW and the average as their papers have them
        loss = Linear().loss(plain, Linear().draw(step - 1, slice(None)))["loss"]
        names = ["a", "b", "matrix"]
        gradients = torch.autograd.grad(loss, [getattr(plain, name) for name in names])
        with torch.no_grad():
            for name, gradient in zip(names, gradients, strict=True):
                p, (mean, square) = getattr(plain, name), moments[name]
                mean.mul_(0.9).add_(gradient, alpha=0.1)
                square.mul_(0.95).add_(gradient.square(), alpha=0.05)
                step_size = (mean / (1 - 0.9**step)) / ((square / (1 - 0.95**step)).sqrt() + chosen.adam_eps)
                p.sub_(0.1 * 0.1 * p).sub_(0.1 * step_size)
            for name, value in kept.items():
                weight = 1 - (1 - 1 / step) ** (ema_exponent(0.05) + 1)
                value.lerp_(getattr(plain, name), weight)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], p, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(averages[name], kept[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_a_checkpoint_of_any_form_of_the_optimizer_is_continued(tmp_path: Path, form: dict[str, bool]) -> None:
    whole = run(tmp_path / "whole", settings())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings(), stop_at(33))
    path = tmp_path / "cut" / "checkpoints" / "00000030.pt"
    state = torch.load(path, weights_only=True)
    other = torch.optim.AdamW(network().parameters(), 0.5, (0.9, 0.95), weight_decay=1e-6, **form)
    state["optimizer"] = {"state": state["optimizer"]["state"], "param_groups": other.state_dict()["param_groups"]}
    save_checkpoint(path, state)
    spoilt = Quadratic(lambda index: float("nan") if index == 35 else None)
    with pytest.raises(RunError, match="became nan at step 36"):
        run(tmp_path / "cut", settings(checkpoint_every=100), spoilt)
    assert_equal(run(tmp_path / "cut", settings()), whole)


def test_callbacks_compute_with_all_threads(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        callback = Callback("threads", 20, lambda step: seen.append(torch.get_num_threads()) or {})
        run(tmp_path, settings(), callbacks=[callback])
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 2]

"""The benchmarks of training: their reference computes what the package does, and they measure what they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from benchmarks import training as module
from benchmarks.contention import measure
from benchmarks.reference_training import ReferenceFluxAudio
from benchmarks.training import RandomClips, Reference, Training, compare, tens
from plaudit.backbone.config import PRESETS
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.stages.sft import FlowTrainSettings
from plaudit.training.settings import LoopSettings
from plaudit.types import TextFeatures
from tests.backbone.tiny import wake

TINY = replace(
    PRESETS["synthetic"], text_dim=16, text_c_dim=16, hidden_dim=16, depth=3, fused_depth=1, mlp_multiple=8,
    text_length=4,
)  # fmt: skip


@pytest.fixture(autouse=True)
def any_precision() -> Iterator[None]:
    """Accelerate holds on to the first precision of a process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def test_the_reference_network_computes_the_same() -> None:
    config = replace(TINY, injection="global_adaln")
    ours, reference = wake(FluxAudio(config)), ReferenceFluxAudio(config)
    reference.load_state_dict({name: ours.state_dict()[name] for name in reference.state_dict()})
    assert {name for name, _ in reference.named_parameters()} == {name for name, _ in ours.named_parameters()}
    clips = RandomClips(config, 9).batch(0, 5)
    text = TextFeatures(clips.text.tokens.float(), clips.text.pooled.float())
    scores = torch.where(torch.arange(5) == 2, torch.nan, clips.scores)
    inputs = (clips.posterior.mean.float(), text, torch.linspace(0.1, 0.9, 5), scores)

    def gradients(network: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        output = network(*inputs)
        output.square().sum().backward()
        return output.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    (a, of_a), (b, of_b) = gradients(ours), gradients(reference)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert of_a.keys() == of_b.keys()
    for name in of_a:
        torch.testing.assert_close(of_a[name], of_b[name], atol=1e-4, rtol=1e-3)


def test_both_loops_go_through_the_same_losses_and_weights_in_turns(tmp_path: Path) -> None:
    settings = FlowTrainSettings(steps=40, learning_rate=1e-3, batch=8, checkpoint_every=20)
    ours = Training(replace(TINY, injection="global_adaln"), settings, tmp_path, LoopSettings(), "no", frames=9)
    reference = Reference(ours)
    for _ in range(2):
        assert reference.turn(20) > 0 and ours.turn(20) > 0
    reference.close()
    assert len(ours.losses) == 4 and len(reference.losses) == 40
    assert ours.losses == pytest.approx(tens(reference.losses), rel=1e-5)
    assert ours.losses[-1] < ours.losses[0]
    weights = dict(ours.network.named_parameters())
    for name, p in reference.network.named_parameters():
        torch.testing.assert_close(weights[name], p, atol=1e-4, rtol=0)


def test_the_comparison_reports_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    results = compare(TINY, 40, 2, False, lambda: 1e9, tmp_path)
    assert results["updates"] == 40 and 0 <= results["loss_difference"] < 0.05
    ratio = results["seconds_an_update_of_reference"] / results["seconds_an_update"]
    assert results["times_reference"] == pytest.approx(ratio)
    assert 0 < results["outside_fraction"] < 1
    shares = results["share_of_peak"], results["share_of_peak_of_reference"]
    assert shares[0] / shares[1] == pytest.approx(ratio) and shares[0] > 0


def test_contention_reports_both_speeds() -> None:
    results = measure(TINY, batch=4, updates=3, turns=1, neighbours=1, compiled=False, reference=True)
    for name in ("", "_of_reference"):
        assert results[f"slowdown{name}"] == pytest.approx(
            results[f"seconds_busy{name}"] / results[f"seconds_quiet{name}"]
        )

"""`python -m benchmarks.sampling`: the compared ways compute the same, and the figures are consistent."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import sampling
from plaudit.errors import ModelError
from plaudit.generate.sampling import initial_noise, sample_latents
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from tests.backbone.tiny import tiny_model, wake
from tests.generate.tiny import HashedText, tiny_music

COMMAND = typer.Typer()
COMMAND.command()(sampling.main)


@pytest.mark.parametrize("plain", [False, True])
def test_the_naive_way_gives_the_sampler_s_latents(plain: bool) -> None:
    model = tiny_music("global_adaln").backbone
    text, negative, noise = HashedText().encode(["a", "b"]), HashedText().encode([""]), initial_noise([1, 2], 6, 5)
    settings = SamplingSettings(steps=3, guidance=Guidance(weight=4.0), precision="no")
    expected = sample_latents(model, text, negative, None, noise, settings)
    predict = sampling.plain_network(model) if plain else model
    latents = sampling.naive_latents(model, predict, text, negative, noise, 3, bf16=False)
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)


def test_the_plain_network_lacks_other_injections() -> None:
    with pytest.raises(ModelError, match="no injection 'film'"):
        sampling.plain_network(wake(tiny_model("film")))


def test_sampling_says_what_was_done_and_what_the_arithmetic_allows() -> None:
    model = tiny_music("global_adaln").backbone
    section = sampling.bench_sample(model, 6, 3, 2, 1, Execution(batch=2))
    assert set(section.seconds) == {"naive float32", "naive bfloat16", "plaudit"}
    assert section.ratio(section.reference) == 1
    facts = section.facts
    assert facts["operations_a_clip_tera"] == pytest.approx(4 * model.forward_flops(6) / 1e12)
    assert facts["times_naive_float32"] == pytest.approx(section.ratio("plaudit"))
    assert 0 < facts["relative_rms"] < 0.05
    assert facts["share_of_peak"] == pytest.approx(facts["limit_seconds_a_clip"] / section.seconds["plaudit"])


def figures(*options: str) -> dict[str, float]:
    command = ["--network", "synthetic", "--clips", "1", "--steps", "1", "--repeats", "1", "--json", "--device", "cpu"]
    done = CliRunner().invoke(COMMAND, [*command, *options])
    assert done.exit_code == 0, done.output
    read: dict[str, float] = json.loads(done.stdout)
    return read


def test_the_command_prints_one_json_object() -> None:
    results = figures()
    assert {"times_naive_float32", "times_naive_bf16", "share_of_peak", "relative_rms"} <= results.keys()
    assert results["times_naive_float32"] > 0 and results["share_of_peak"] > 0
    assert "warm_up_first" not in results


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_second_process_warms_up_from_the_cache() -> None:
    results = figures("--compile", "default")
    assert 0 < results["warm_up_second"] < results["warm_up_first"]
    assert results["relative_rms"] < 0.05

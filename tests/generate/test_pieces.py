"""Pieces longer than the model's own length, loops, and two checkpoints: how they are sampled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plaudit import loading
from plaudit.backbone.layers import rotary_table, rotate
from plaudit.cli.main import app
from plaudit.errors import ModelError, RecipeError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic, save_model
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.settings import (
    Execution,
    Guidance,
    NoiseOptimization,
    PieceSettings,
    SamplingSettings,
    Trajectory,
)
from tests.backbone.tiny import inputs
from tests.generate.test_optimize import Quiet
from tests.generate.tiny import tiny_music

SETTINGS = SamplingSettings(steps=4, precision="no", guidance=Guidance(weight=3.0), score=2.0)
SHARED = SETTINGS.changed(trajectory=Trajectory())


def longer(**piece: object) -> SamplingSettings:
    return SETTINGS.changed(piece=piece)


def two(injection: str = "input_add") -> TextToMusic:
    """A tiny model with a second one of other weights."""
    other = tiny_music(injection)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in other.backbone.parameters():
            parameter.mul_(1.1)
    return replace(tiny_music(), second=other)


@pytest.mark.parametrize("piece", [{}, {"seconds": 1.3}, {"window": 2.0}, {"seconds": 1.3, "window": 9.0}])
def test_a_piece_of_the_models_length_is_the_plain_clip(piece: dict[str, object]) -> None:
    model = tiny_music()
    assert torch.equal(model.generate(["a"], [1], longer(**piece)), model.generate(["a"], [1], SETTINGS))


@pytest.mark.parametrize(
    ("piece", "samples", "windows"),
    [
        ({"seconds": 0.5}, 500, 0),
        ({"seconds": 4.0}, 4000, 4),  # windows of 13 of 40 frames that share 3
        ({"seconds": 4.0, "overlap": 0.5}, 4000, 5),
        ({"seconds": 4.0, "window": 4.0}, 4000, 0),
        ({"seconds": 4.0, "window": 2.0}, 4000, 3),
        ({"seconds": 1.0, "loop": True}, 1000, 2),
        ({"seconds": 4.0, "loop": True}, 4000, 4),
        ({"loop": True}, 1300, 2),
    ],
)
def test_a_piece_has_its_length_and_the_fewest_windows(
    piece: dict[str, object], samples: int, windows: int
) -> None:
    model, settings = tiny_music(), longer(**piece)
    assert model.generate(["a"], [1], settings).shape == (1, samples)
    plan = model.plan(settings)
    assert (0 if plan.windows is None else len(plan.windows)) == windows


@pytest.mark.parametrize("loop", [False, True])
def test_a_long_clip_is_the_same_in_any_batch(loop: bool) -> None:
    model, settings = two(), longer(seconds=4.0, loop=loop).changed(trajectory=Trajectory(mode="average"))
    prompts, seeds = ["piano", "drums", "piano"], [3, 4, 5]
    whole = model.generate(prompts, seeds, settings, Execution(batch=64))
    for size in (1, 3, 7, 13):
        output = model.generate(prompts, seeds, settings, Execution(batch=size))
        torch.testing.assert_close(output, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.generate(["drums"], [4], settings)[0], whole[1], atol=1e-5, rtol=0)


def test_a_loop_of_the_network_does_not_know_where_it_begins() -> None:
    """Noise turned by the distance of the windows gives the piece turned by as much: the join is like any place."""
    from plaudit.generate.sampling import initial_noise, sample_latents

    model, settings = tiny_music(), longer(seconds=3.2, loop=True, window=1.6, overlap=0.5)
    plan = model.plan(settings)
    assert plan.windows is not None and plan.windows.index[:, 0].tolist() == [0, 8, 16, 24]
    text, negative = model.text_encoder.encode(["a"]), model.text_encoder.encode([""])
    noise = initial_noise([1], 32, 5)
    output, turned = (
        sample_latents(model.backbone, text, negative, None, given, settings, plan)
        for given in (noise, noise.roll(8, 1))
    )
    torch.testing.assert_close(turned, output.roll(8, 1), atol=1e-5, rtol=0)


def test_rotary_positions_allow_any_length_and_tell_distances_alone() -> None:
    """Angles go on without end, and what a query makes of a key depends on how far apart they stand, at any position.

    So one pass may be of any length; what is new to a network beyond its training are the distances.
    """
    table = rotary_table(20_000, 16, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 16, generator=generator)

    def product(at: int, other: int) -> float:
        return float(rotate(query, table[at]) @ rotate(key, table[other]))

    for distance in (0, 1, 150, 5000):
        assert product(14_000, 14_000 + distance) == pytest.approx(product(10, 10 + distance), abs=1e-4)
    latents, text, t = inputs(1, 4000)
    with torch.no_grad():
        output = tiny_music("none").backbone(latents, text, t)
    assert output.shape == latents.shape and bool(torch.isfinite(output).all())


@pytest.mark.parametrize("trajectory", [Trajectory(), Trajectory(mode="average"), Trajectory(at=0.25)])
def test_two_checkpoints_make_another_clip_than_either(trajectory: Trajectory) -> None:
    model = two()
    settings = SETTINGS.changed(trajectory=trajectory)
    output = model.generate(["a"], [1], settings)
    assert model.second is not None
    for alone in (replace(model, second=None), model.second):
        assert not torch.allclose(output, alone.generate(["a"], [1], SETTINGS), atol=1e-3)
    same = replace(model, second=replace(model, second=None))
    torch.testing.assert_close(
        same.generate(["a"], [1], settings), replace(model, second=None).generate(["a"], [1], SETTINGS)
    )


def test_a_second_checkpoint_may_take_no_score() -> None:
    model = two("none")
    assert model.second is not None and model.second.backbone.config.injection == "none"
    output = model.generate(["a"], [1], SHARED)
    assert torch.isfinite(output).all()
    with pytest.raises(ModelError, match="takes no score"):
        replace(model.second, second=tiny_music()).generate(["a"], [1], SHARED)


def test_models_that_have_no_latents_in_common_are_refused_in_one_line() -> None:
    model, other = tiny_music(), tiny_music()
    other.backbone.latent_std[2] = 3.0
    with pytest.raises(ModelError, match=r"latent_std differs by up to 1") as error:
        replace(model, second=other)
    assert "\n" not in str(error.value)
    for part in ("codec", "text_encoder"):
        other = tiny_music()
        getattr(other, part).name = "foreign"
        with pytest.raises(ModelError, match=r"must share a .*'foreign'"):
            replace(model, second=other)


def test_a_second_model_and_a_trajectory_need_each_other() -> None:
    with pytest.raises(RecipeError, match="need a second model"):
        tiny_music().generate(["a"], [1], SHARED)
    with pytest.raises(RecipeError, match="need a trajectory"):
        two().generate(["a"], [1], SETTINGS)


@pytest.mark.parametrize("piece", [{"seconds": 0.0}, {"seconds": -1}, {"overlap": 1.0}, {"window": 0}, {"tempo": 3}])
def test_bad_pieces_are_refused(piece: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=r"sampling: (unknown key )?piece"):
        longer(**piece)


def test_less_than_a_frame_is_refused() -> None:
    with pytest.raises(RecipeError, match="less than one latent frame"):
        tiny_music().generate(["a"], [1], longer(seconds=0.05))


def test_noise_of_a_long_piece_of_two_checkpoints_can_be_optimized() -> None:
    model, settings = two(), SHARED.changed(piece=PieceSettings(seconds=3.0))
    result = optimize_noise(model, ["a"], [3], settings, Optimizer("quiet", Quiet(), NoiseOptimization(iterations=3)))
    assert result.waves.shape == (1, 3000)
    torch.testing.assert_close(
        result.rewards[0], Quiet().score_tensors(model.generate(["a"], [3], settings), 1000, ["a"]), atol=1e-3, rtol=0
    )
    assert result.rewards.max() > result.rewards[0]


def test_the_sidecar_names_the_second_model(tmp_path: Path) -> None:
    (path,) = generate_clips(two(), [ClipRequest("a-0", "a", 0)], SHARED, tmp_path)
    recorded = json.loads(path.with_suffix(".json").read_text())
    assert recorded["second_model"] == {"stage": "test"} and recorded["sampling"]["trajectory"]["at"] == 0.5


def test_the_command_generates_long_pieces_loops_and_trajectories_of_two_models(tmp_path: Path) -> None:
    def run(*words: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(
            app, ["generate", "slow piano", "--steps", "1", "--device", "cpu", "--json", *words]
        )
        assert done.exit_code == 0, done.output
        files = [Path(row["file"]) for row in json.loads(done.stdout)]
        return [json.loads(file.with_suffix(".json").read_text()) for file in files]

    (long,) = run("--seconds", "12.5", "-o", str(tmp_path / "long"))
    assert long["measured"]["seconds"] == 12.5 and long["postprocessing"]["fade_ms"] == 10.0  # type: ignore[index]
    (loop,) = run("--seconds", "3", "--loop", "-o", str(tmp_path / "loop"))
    assert loop["measured"]["seconds"] == 47 * 1024 / 16000 and loop["postprocessing"]["fade_ms"] == 0  # type: ignore[index]
    second = loading.load("synthetic", "cpu")
    second.config = replace(second.config, provenance={"stage": "other"})
    save_model(tmp_path / "second", second)
    for words, trajectory in (
        ((), {"mode": "switch", "at": 0.5}),
        (("--switch-at", "0.8"), {"mode": "switch", "at": 0.8}),
        (("--average",), {"mode": "average", "weight": 0.5}),
    ):
        (clip,) = run("--second-model", str(tmp_path / "second"), *words, "-o", str(tmp_path / "-".join(words)))
        assert clip["second_model"] == {"stage": "other"}
        assert clip["sampling"]["trajectory"].items() >= trajectory.items()  # type: ignore[index]


@pytest.mark.parametrize(
    "words", [("--average",), ("--switch-at", "0.5"), ("--second-model", "x", "--average", "--switch-at", "0.8")]
)
def test_trajectory_options_that_do_not_fit_are_wrong_usage(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["generate", "piano", *words])
    assert done.exit_code in (1, 2) and "--average" in done.output + str(done.exception)

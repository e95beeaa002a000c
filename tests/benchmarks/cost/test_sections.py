"""The compared implementations compute the same, and the figures are consistent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.cost.__main__ import app
from benchmarks.cost.decode import bench_clips, bench_decode
from benchmarks.cost.networks import network
from benchmarks.cost.timing import in_turns, machine
from benchmarks.cost.train import bench_train
from plaudit.errors import ModelError
from plaudit.machine import matrix_peak
from tests.generate.tiny import tiny_music

CPU = torch.device("cpu")


def check_progress(done: int, total: int) -> None:
    assert 0 < done <= total


def test_ways_are_run_in_turns_and_the_median_counts() -> None:
    order: list[str] = []
    waits = {"a": iter([0.0, 0.05, 0.0, 0.0]), "b": iter([0.0] * 4)}

    def way(name: str) -> None:
        order.append(name)
        time.sleep(next(waits[name]))

    taken = in_turns({name: lambda name=name: way(name) for name in waits}, 3, check_progress)  # type: ignore[misc]
    assert order == ["a", "b"] * 4
    assert all(seconds < 0.02 for seconds in taken.values())


def test_training_decoding_and_clips_are_measured() -> None:
    music = tiny_music()
    before = {name: value.clone() for name, value in music.backbone.state_dict().items()}
    sections = [bench_decode(music, 2, 1, check_progress), bench_train(music.backbone, 6, 2, 1, check_progress)]
    assert any(not torch.equal(before[name], value) for name, value in music.backbone.state_dict().items())
    for section in sections:
        assert section.reference in section.seconds and all(seconds > 0 for seconds in section.seconds.values())
    clips = bench_clips(music, 2, 1, check_progress)
    assert clips.facts["seconds for all"] == pytest.approx(2 * clips.seconds["plaudit"])


def test_published_sizes_have_the_published_frames_and_no_part_at_rest() -> None:
    assert network("synthetic", CPU)[1] == 156
    with pytest.raises(ModelError, match="no model 'fluxaudio-xl'"):
        network("fluxaudio-xl", CPU)


@pytest.mark.slow
def test_a_published_size() -> None:
    model, frames = network("fluxaudio-s-44k", CPU)
    assert frames == 430 and all(parameter.any() for parameter in model.parameters())
    assert network("fluxaudio-s-16k", CPU)[1] == 312


def test_the_machine_and_its_peak() -> None:
    facts = machine(CPU)
    assert facts["device"] == "cpu" and facts["cores"] >= 1
    assert matrix_peak(torch.float32, CPU, size=64, repeats=2) > 0


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    options = ["--section", "clips", "--clips", "1", "--repeats", "1", "-o", str(tmp_path / "bench.json")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert [section["name"] for section in figures["sections"]] == ["clips"]
    assert CliRunner().invoke(app, ["--section", "nothing"]).exit_code == 2


def test_separation_is_measured_against_demucs_own_driver() -> None:
    pytest.importorskip("demucs", reason="needs the extra separate")
    from benchmarks.cost.separate import bench_separate
    from plaudit.generate.separation import Separator
    from tests.generate.test_separation import hybrid

    section = bench_separate(Separator("tiny", hybrid(), CPU), 1, 1.0, 1, check_progress)
    assert section.reference == "demucs clip by clip" and section.ratio("plaudit") > 0

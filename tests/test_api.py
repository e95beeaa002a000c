"""Plaudit in one call from Python: the commands' results, with the settings of their options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import plaudit
from plaudit.cli.main import app
from plaudit.errors import EvaluationError, PlauditError, PromptError, RecipeError
from plaudit.reporting import Silent

FAST = {"sampling": {"steps": 1, "guidance": {"weight": 1}}, "device": "cpu"}


def test_the_package_is_quick_to_import_and_complete() -> None:
    code = (
        "import sys, plaudit; print('torch' in sys.modules); import plaudit.generate.settings;"
        "print(*[callable(getattr(plaudit, name)) for name in plaudit.__all__[1:]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *["True"] * (len(plaudit.__all__) - 1)]
    with pytest.raises(AttributeError, match="nothing"):
        plaudit.nothing  # noqa: B018


def test_clips_in_memory_are_those_in_a_folder(tmp_path: Path) -> None:
    (there,) = plaudit.generate("calm harp", output=tmp_path, **FAST)
    assert there.file == tmp_path / "calm-harp-0.wav" and there.file.is_file()
    (here,) = plaudit.generate(["calm harp"], plaudit.GenerateSettings(**FAST))
    assert here.file is None and (here.prompt, here.seed) == ("calm harp", 0)
    assert here.sample_rate == there.sample_rate and here.waveform.dtype == np.float32
    assert np.allclose(here.waveform, there.waveform, atol=2**-14)
    assert here.details["sampling"] == there.details["sampling"] and here.details["sampling"]["steps"] == 1


def test_settings_of_sampling_are_changes_to_those_of_the_model() -> None:
    own = plaudit.load("synthetic", "cpu").config.sampling
    (clip,) = plaudit.generate("calm harp", plaudit.GenerateSettings(**FAST), guidance={"rescale": 0.5}, seed=3)
    expected = own.model_dump(mode="json")
    expected |= {"steps": 1, "guidance": expected["guidance"] | {"weight": 1, "rescale": 0.5}}
    assert clip.details["sampling"] == expected and clip.seed == 3


def test_scores_of_the_best_are_the_highest(tmp_path: Path) -> None:
    plaudit.generate("calm harp", best_of=3, output=tmp_path, **FAST)
    with pytest.warns(UserWarning, match="candidates of --best-of"):
        (best,) = plaudit.score(tmp_path, cache=False)
    others = plaudit.score(tmp_path / "candidates", cache=False)
    assert best.error is None and len(others) == 3
    assert best.reward == pytest.approx(max(one.reward for one in others), abs=1e-5)  # another batch
    ranking = plaudit.rank(tmp_path / "candidates", keep=2, copy_to=tmp_path / "two", cache=False)
    assert [entry.scored.score for entry in ranking.best] == sorted((o.reward for o in others), reverse=True)[:2]
    assert len(list((tmp_path / "two").glob("*.wav"))) == 2 and ranking.errors == []


def test_what_is_wrong_is_one_line() -> None:
    wrong: list[tuple[type[PlauditError], str, dict]] = [
        (RecipeError, "did you mean count", {"coutn": 2}),
        (RecipeError, "did you mean steps", {"stesp": 2}),
        (RecipeError, "sampling.steps", {"steps": 0}),
        (RecipeError, "need --second-model", {"trajectory": {"at": 0.3}}),
        (PromptError, "the prompt is empty", {}),
    ]
    for kind, said, changes in wrong:
        with pytest.raises(kind, match=said) as caught:
            plaudit.generate("calm" if changes else " ", **changes)
        assert "\n" not in str(caught.value)


def test_evaluations_are_those_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        plaudit.generate("calm harp" if seed else "fast drums", seed=seed, output=tmp_path / "out", **FAST)
    chosen = ("reward", "clap", "concepts")
    evaluation = plaudit.evaluate(tmp_path / "out", metrics=chosen, cache=False, output=tmp_path / "here")
    words = [word for name in chosen for word in ("--metric", name)]
    app(["evaluate", str(tmp_path / "out"), *words, "--no-cache", "-o", str(tmp_path / "there"), "--json"],
        standalone_mode=False)  # fmt: skip
    summary = json.loads(capsys.readouterr().out)
    assert summary["metrics"] == json.loads(json.dumps(evaluation.summary()["metrics"]))
    assert [row["metric"] for row in summary["metrics"]] == list(chosen)
    here, there = (tmp_path / name / "clips.csv" for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


def test_systems_are_compared_and_recipes_refused_as_by_the_commands(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1.0)):
        rows = "".join(f"{i},{(i * 7) % 5 + shift * (1 + i % 3)}\n" for i in range(8))
        (tmp_path / f"{name}.csv").write_text(f"id,reward\n{rows}")
    systems = [tmp_path / "a.csv", tmp_path / "b.csv"]
    result = plaudit.compare(systems, margins={"reward": 0.1}, output=tmp_path / "page")
    (row,) = result.table.rows
    assert row.metric == "reward" and row.difference.mean == pytest.approx(15 / 8)
    assert result.series == [] and result.page is not None and result.page.is_file()
    with pytest.raises(RecipeError, match="name a recipe, or a run with --from"):
        plaudit.run()
    with pytest.raises(RecipeError, match="did you mean beta"):
        plaudit.run("smoke", changes=["stages.crpo.betta=1"], output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_folder_of_clips_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    plaudit.generate("calm piano", output=tmp_path / "clips", steps=1)
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(EvaluationError, match="there is one system"):
        plaudit.compare([tmp_path / "clips"], reporter=Notes())
    assert notes == []


def test_a_generation_reports_its_steps_and_can_be_stopped_within_one(tmp_path: Path) -> None:
    sampling = {"steps": 3, "piece": {"seconds": 2.0}}
    settings = {"model": "synthetic-distilled", "device": "cpu", "sampling": sampling, "output": tmp_path}
    steps: list[int] = []
    plaudit.generate("piano", **settings)
    untouched = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(step: int, of: int) -> None:
        steps.append(step)
        assert of == 3
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(plaudit.api.stream_generate("drums", on_step=stop, **settings))
    assert steps == [0, 1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == untouched

"""Cells of a sweep: whole or not there, continued to the same bytes, refused where they are of something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.corpus.sources import HeldOut
from plaudit.errors import ModelError, PromptError, RunError
from plaudit.evaluate.embeddings import AudioEncoder, reference_of
from plaudit.evaluate.evaluation import EvaluationSetup, Evaluators
from plaudit.evaluate.values import VALUES, Values
from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.pipeline.sweeps import SweepCell, fill_cells
from tests.generate.tiny import tiny_music

PROMPTS = ["slow", "fast", "loud", "quiet"]


class Moments:
    """Hears the first moments of a clip; reads a prompt as its length."""

    name, sample_rate, dim = "moments", 1000, 3

    def audio(self, wave: Tensor) -> Tensor:
        return torch.nn.functional.normalize(torch.stack([wave.mean(1), wave.std(1), wave.abs().amax(1)], 1), dim=1)

    def text(self, prompts: list[str]) -> Tensor:
        return self.audio(torch.tensor([[0.0, float(len(prompt))] for prompt in prompts]))


class Loud:
    """A reward for loudness, which fails on silent clips."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        from plaudit.reward.base import Recording

        return torch.stack(
            [Recording(wave, rate, prompt).wave.std() for wave, prompt in zip(waves, prompts, strict=True)]
        )


def setup(prompts: list[str] = PROMPTS, **identity: str) -> EvaluationSetup:
    rows = np.random.default_rng(0).normal(size=(12, 3))
    clap = AudioEncoder("moments", "d1", Moments())  # type: ignore[arg-type]
    evaluators = Evaluators(Loud(), clap, (clap,), identity=identity)
    return EvaluationSetup(HeldOut(prompts), evaluators, reference_of(clap, rows, "here"), 3, ("vendi",))


def cell(folder: Path, score: float = 1.0, model: str = "m1", music: TextToMusic | None = None) -> SweepCell:
    settings, condition = SamplingSettings(steps=2, score=score, precision="no"), f"score={score:g}"
    load = lambda: music or tiny_music()  # noqa: E731
    return SweepCell(folder / f"score-{score:g}", load, settings, {"model": model}, model, condition)


def fill(setup: EvaluationSetup, *cells: SweepCell) -> list[Values | str]:
    return fill_cells(setup, cells, Execution(batch=2), lambda done, total: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_cells_hold_clips_and_values_and_are_computed_once(tmp_path: Path) -> None:
    one, other = cell(tmp_path), cell(tmp_path, score=-2.0)
    found = fill(setup(), one, other)
    assert all(isinstance(values, Values) and values.prompts == PROMPTS for values in found)
    assert [one.conditions for one in found] == [["score=1"], ["score=-2"]]  # type: ignore[union-attr]
    assert found[0].clip("reward").tolist() != found[1].clip("reward").tolist()  # type: ignore[union-attr]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score--2", "score-1"]
    assert len(list((one.folder / "clips").glob("*.wav"))) == 4
    sidecar = json.loads((one.folder / "clips" / "0002.json").read_text())
    assert (sidecar["prompt"], sidecar["seed"]) == ("loud", 5)

    def never() -> TextToMusic:
        raise AssertionError("a whole cell needs no model")

    again = fill(setup(), replace(one, load=never), replace(other, load=never))
    assert again[0].clip("reward").tolist() == found[0].clip("reward").tolist()  # type: ignore[union-attr]


def test_a_cell_cut_off_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = cell(tmp_path / "whole")
    fill(setup(), whole)
    for place in ("after the first batch", "before the values"):
        own = cell(tmp_path / place)
        fill(setup(), own)
        draft = own.folder.with_name(f".{own.folder.name}.partial")
        own.folder.rename(draft)
        (draft / VALUES).unlink()
        (draft / "clips" / ".0001.wav.torn").write_bytes(b"half")
        if place == "after the first batch":
            (draft / "clips" / "0003.wav").unlink()
        fill(setup(), own)
        assert contents(own.folder) == contents(whole.folder)
        assert not draft.exists()


def test_a_draft_of_something_else_is_not_continued(tmp_path: Path) -> None:
    wanted, other = cell(tmp_path / "a"), cell(tmp_path / "b", model="m2", music=tiny_music("film"))
    fill(setup(), other)
    draft = wanted.folder.with_name(f".{wanted.folder.name}.partial")
    draft.parent.mkdir()
    other.folder.rename(draft)
    fill(setup(), wanted)
    fill(setup(), clean := cell(tmp_path / "clean"))
    assert contents(wanted.folder) == contents(clean.folder)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda folder: (setup(), cell(folder, model="m2")), "model"),
        (lambda folder: (setup(["slow", "fast"]), cell(folder)), "prompts"),
        (lambda folder: (setup(reward="r2"), cell(folder)), "evaluators.reward"),
        (lambda folder: (replace(setup(), seed=4), cell(folder)), "seed"),
        (lambda folder: (replace(setup(), metrics=()), cell(folder)), "metrics"),
        (lambda folder: (setup(), replace(cell(folder), sampling=SamplingSettings(score=1.0))), "sampling.steps"),
    ],
)  # fmt: skip
def test_a_cell_of_another_sweep_is_refused_before_any_work(tmp_path: Path, other, named: str) -> None:  # type: ignore[no-untyped-def]
    fill(setup(reward="r1") if named == "evaluators.reward" else setup(), cell(tmp_path))
    before = contents(tmp_path)
    asked, wanted = other(tmp_path)
    with pytest.raises(RunError, match=f"was made with another {named}; choose another --output"):
        fill(asked, cell(tmp_path, score=9.0), wanted)
    assert contents(tmp_path) == before


def test_a_folder_that_is_no_cell_is_refused(tmp_path: Path) -> None:
    own = cell(tmp_path)
    own.folder.mkdir()
    with pytest.raises(RunError, match="is no cell of a sweep"):
        fill(setup(), own)


def test_a_silent_model_leaves_a_reason_and_other_cells_continue(tmp_path: Path) -> None:
    mute = tiny_music()
    mute.backbone.latent_mean.zero_()
    mute.backbone.latent_std.zero_()
    silent, sound = fill(setup(), cell(tmp_path, music=mute), cell(tmp_path, score=2.0))
    assert isinstance(silent, str) and "silent" in silent
    assert isinstance(sound, Values)
    assert fill(setup(), cell(tmp_path, music=mute)) == [silent]


def test_one_prompt_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="at least two prompts"):
        fill(setup(["slow"]), cell(tmp_path))


def test_scores_and_injections_are_checked() -> None:
    from plaudit.errors import RecipeError
    from plaudit.pipeline.injection_sweep import check_injections
    from plaudit.pipeline.sweeps import check_scores

    for scores, said in (
        ([1.0, float("nan")], "finite"),
        ([1.0, float("inf")], "finite"),
        ([1.0, 2.0, 1.0], "score 1 is given twice"),
        ([1.0], "at least two scores"),
    ):
        with pytest.raises(PromptError, match=said):
            check_scores(scores)
    with pytest.raises(RecipeError, match="no injection 'none'; a score enters by global_adaln"):
        check_injections(["none"])
    with pytest.raises(RecipeError, match="film is given twice"):
        check_injections(["film", "film"])


def test_model_labels_are_distinct(tmp_path: Path) -> None:
    from plaudit.loading import MODELS
    from plaudit.pipeline.sweeps import swept_models

    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "sft").symlink_to(MODELS["synthetic"])
    one, other = str(tmp_path / "a" / "sft"), str(tmp_path / "b" / "sft")
    assert list(swept_models([one, "synthetic"])) == ["sft", "synthetic"]
    assert list(swept_models([one, other])) == ["a-sft", "b-sft"]
    assert list(swept_models(["first=synthetic", "second=synthetic"])) == ["first", "second"]
    with pytest.raises(ModelError, match="two models are called 'synthetic'"):
        swept_models(["synthetic", "synthetic"])
    with pytest.raises(ModelError, match="no LABEL=MODEL"):
        swept_models(["a/b=synthetic"])

"""An evaluation whose prompts, reference and baseline are not of the run's corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from plaudit import loading
from plaudit.audio import read_audio, resample, write_wav
from plaudit.cli.console import ConsoleReporter
from plaudit.errors import EvaluationError, PromptError, RecipeError
from plaudit.evaluate.embeddings import AudioEncoder, export_references, load_references, reference_of
from plaudit.evaluate.values import Values
from plaudit.pipeline.estimate import CostEstimate
from plaudit.pipeline.requirements import requirements_of
from plaudit.pipeline.results import stages_of
from plaudit.pipeline.run_folder import Run
from plaudit.pipeline.runner import outlook
from plaudit.pipeline.steps import located, run_recipe, steps
from plaudit.recipe import Recipe, load_recipe
from plaudit.sidecars import read_sidecar
from plaudit.storage import read_json

PROMPTS = ["calm ambient pads", "fast drums and bass", "slow sad piano", "a prompt beyond the first three"]
RATE = 16000


def small(*changes: str) -> Recipe:
    """The smoke recipe with a short SFT and a given reward."""
    return load_recipe(
        "smoke",
        ["precision=no", "corpus.size=40", "corpus.seconds=3", "reward.kind=load", "stages.expert_iteration=null",
         "stages.cross_load=null", "stages.pairs=null", "stages.crpo=null", "stages.sft.train.steps=2",
         "sampling.steps=2", "sampling.prefix=good ", "sampling_batch=8", "evaluate.prompts=3",
         "evaluate.reference_clips=4", "evaluate.sweep_scores=[]", "evaluate.audio_players=2", *changes],
    )  # fmt: skip


def tones(folder: Path, count: int = 5) -> np.ndarray:
    """Reference clips: [count, T]."""
    dice = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    waves = [np.sin(2 * np.pi * 110 * (n + 1) * time) * 0.2 + 0.01 * dice.standard_normal(len(time)) for n in
             range(count)]  # fmt: skip
    folder.mkdir()
    for number, wave in enumerate(waves):
        write_wav(folder / f"{number}.wav", wave.astype(np.float32), RATE)
    return np.stack(waves).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "prompts.json").write_text(json.dumps([{"prompt_id": i, "prompt": p} for i, p in enumerate(PROMPTS)]))
    tones(folder / "music")
    return folder


@pytest.fixture(scope="module")
def recipe(inputs: Path) -> Recipe:
    return small(
        f"evaluate.prompt_file={inputs / 'prompts.json'}", f"evaluate.reference={inputs / 'music'}",
        "evaluate.baseline={model: synthetic-base, guidance: 3.5}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    run_recipe(recipe, folder, ConsoleReporter())
    return folder


def test_the_baseline_is_a_row_of_its_own_beside_the_same_weights_without_a_score(run: Path, recipe: Recipe) -> None:
    stages = read_json(run / "report" / "report.json")["stages"]
    titles = {stage["key"]: stage["title"] for stage in stages}
    assert titles == {
        "baseline": "Baseline", "unscored": "SFT without a score", "sft": "SFT", "finished": "Post-processed"
    }  # fmt: skip
    sidecars = {label: read_sidecar(run / f"clips-{label}" / "0001.wav") for label in ("baseline", "unscored", "sft")}
    sampling = {label: sidecar["sampling"] for label, sidecar in sidecars.items()}
    assert [sampling[label]["score"] for label in sidecars] == [None, None, 1.5]
    assert [sampling[label]["prefix"] for label in sidecars] == ["", "good ", "good "]
    assert [sampling[label]["guidance"]["weight"] for label in sidecars] == [3.5, 4.0, 4.0]
    assert sampling["baseline"]["negative_prompt"] == "" != sampling["sft"]["negative_prompt"]
    assert sidecars["unscored"]["weights"] == sidecars["sft"]["weights"] != sidecars["baseline"]["weights"]
    assert {sidecar["seed"] for sidecar in sidecars.values()} == {recipe.evaluate.seed + 1}


def test_prompts_are_the_first_of_the_file(run: Path) -> None:
    for label in ("baseline", "sft", "finished"):
        values = Values.read(run / f"values-{label}")
        assert values.prompts == PROMPTS[:3]


def test_the_reference_is_that_of_the_folder(run: Path, inputs: Path) -> None:
    clap = loading.CLAPS.load("synthetic")
    encoder = AudioEncoder("synthetic", loading.CLAPS.identity("synthetic"), clap)
    files = sorted((inputs / "music").iterdir())
    waves = np.stack([resample(*read_audio(file), clap.sample_rate) for file in files])
    with torch.inference_mode():
        expected = clap.audio(torch.from_numpy(waves)).numpy()
    [reference] = load_references(run / "reference" / "reference.safetensors")
    assert (reference.clips, reference.digest) == (5, encoder.digest)
    assert reference.embeddings is not None
    np.testing.assert_allclose(reference.embeddings, expected, atol=1e-5)


def test_an_exported_reference_serves_as_its_folder(run: Path, inputs: Path, recipe: Recipe, tmp_path: Path) -> None:
    [reference] = load_references(run / "reference" / "reference.safetensors")
    export_references(tmp_path / "music.safetensors", [reference], with_embeddings=False)
    other = small(
        f"evaluate.prompt_file={inputs / 'prompts.json'}", f"evaluate.reference={tmp_path / 'music.safetensors'}"
    )
    folder = run_recipe(other, tmp_path / "run", ConsoleReporter(), "values-sft", source=run)
    mine, theirs = Values.read(folder), Values.read(run / "values-sft")
    first, second = mine.set("frechet"), theirs.set("frechet")
    assert first is not None and second is not None and first.value == pytest.approx(second.value, rel=1e-6)
    encoder = AudioEncoder("other", "0" * 16, loading.CLAPS.load("synthetic"))
    export_references(tmp_path / "other.safetensors", [reference_of(encoder, np.eye(3), "")], with_embeddings=True)
    wrong = small(f"evaluate.reference={tmp_path / 'other.safetensors'}")
    with pytest.raises(EvaluationError, match="is of the embedding 'other', not of 'synthetic'"):
        run_recipe(wrong, tmp_path / "wrong", ConsoleReporter(), "reference")


def test_other_prompts_reference_or_baseline_make_their_steps_stale(run: Path, recipe: Recipe, inputs: Path) -> None:
    def stale(changed: Recipe) -> set[str]:
        return {one.step for one in outlook(steps(located(changed), run), Run(run)) if one.state == "replaced"}

    assert stale(recipe) == set()
    evaluate = recipe.evaluate
    assert evaluate.baseline is not None
    guidance = evaluate.baseline.model_copy(update={"guidance": 2.0})
    changed = recipe.model_copy(update={"evaluate": evaluate.model_copy(update={"baseline": guidance})})
    assert stale(changed) == {"clips-baseline", "values-baseline", "report"}
    prompts = inputs / "prompts.json"
    before = prompts.read_text()
    prompts.write_text(json.dumps([*PROMPTS[1:], "another"]))
    try:
        labels = ("baseline", "unscored", "sft", "finished")
        expected = {f"{part}-{label}" for part in ("clips", "values") for label in labels} | {"report"}
        assert stale(recipe) == expected
    finally:
        prompts.write_text(before)


def test_a_baseline_trained_in_a_run_of_its_own_is_the_row_of_another(run: Path, inputs: Path, tmp_path: Path) -> None:
    trained = small("backbone.injection=none", "sampling.score=null", f"evaluate.reference={inputs / 'music'}")
    baseline = run_recipe(trained, tmp_path / "baseline", ConsoleReporter(), "sft")
    recipe = small(f"evaluate.baseline.model={baseline}", f"evaluate.prompt_file={inputs / 'prompts.json'}")
    clips = run_recipe(recipe, tmp_path / "run", ConsoleReporter(), "clips-baseline")
    sidecar = read_sidecar(clips / "0000.wav")
    assert (sidecar["prompt"], sidecar["sampling"]["guidance"]["weight"]) == (PROMPTS[0], 4.5)
    assert sidecar["model"]["stage"] == "sft"
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["clips-baseline"]


def test_rows_follow_the_recipe() -> None:
    assert stages_of(small()) == ["unscored", "sft"]
    assert stages_of(small("sampling.score=null")) == ["sft"]
    assert stages_of(small("sampling.score=null", "evaluate.baseline={model: synthetic}")) == ["baseline", "sft"]
    for name in ("baseline", "unscored"):
        with pytest.raises(RecipeError, match=f"stage {name} has the name of another step"):
            small(f"stages.sft.name={name}")


def test_what_is_missing_is_a_line_each(tmp_path: Path) -> None:
    recipe = small(
        f"evaluate.prompt_file={tmp_path / 'prompts.csv'}", f"evaluate.reference={tmp_path / 'sdd.safetensors'}",
        f"evaluate.baseline.model={tmp_path / 'baseline'}",
    )  # fmt: skip
    missing = {one.what: one.otherwise for one in requirements_of(recipe) if not one.here}
    assert missing == {
        "prompts": f"plaudit prepare song-describer AUDIO --prompts {tmp_path / 'prompts.csv'}",
        "reference": f"plaudit prepare song-describer AUDIO --reference {tmp_path / 'sdd.safetensors'}",
        "baseline": "train it, or name another model",
    }
    assert CostEstimate(recipe).works()["reference"].unknown == "its music is not here"
    with pytest.raises(RecipeError, match=r"needs what is not here: prompts .*; reference .*; baseline .*name another"):
        run_recipe(recipe, tmp_path / "run", ConsoleReporter())
    assert not (tmp_path / "run").exists()
    (tmp_path / "prompts.csv").write_text("id,prompt\n0,one alone\n")
    alone = replace_prompts(recipe, tmp_path / "prompts.csv")
    with pytest.raises(PromptError, match="holds one prompt, evaluation needs 2"):
        run_recipe(alone, tmp_path / "run", ConsoleReporter(), "clips-unscored")


def replace_prompts(recipe: Recipe, file: Path) -> Recipe:
    evaluate = recipe.evaluate.model_copy(update={"prompt_file": file, "reference": None, "baseline": None})
    return recipe.model_copy(update={"evaluate": evaluate})

"""Cross-loading after different amounts of expert iteration, at a small size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cross_loading import Study, change, draw, figures_of
from plaudit.storage import load_tensors
from tests.benchmarks.expert_iteration import small_run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("cross-loading")
    run = small_run(folder / "run", seconds=3, candidates=4)
    return Study(run, folder / "output", "expert_iteration", None, 3)


@pytest.mark.slow
def test_the_standard_amount_is_the_stage_itself(study: Study) -> None:
    expected = load_tensors(study.run / "expert_iteration" / "model.safetensors")
    weights = study.model(1).backbone.state_dict()
    assert all((weights[name] == value).all() for name, value in expected.items())


@pytest.mark.slow
def test_figures_of_an_amount(study: Study) -> None:
    none = figures_of(study, 0, ["input_add"], [0.5, 1.5])
    assert none["utility_from_start"]["mean"] == 0 and none["sweep_spearman"] in (-1, 0, 1)
    low, high = (study.values(0, score=score)["utility"].mean() for score in (0.5, 1.5))
    assert none["score_effect"]["mean"] == pytest.approx(high - low, abs=1e-3)
    half = figures_of(study, 0.5, ["input_add"], [1.5])
    assert half["utility_from_start"]["mean"] == pytest.approx(half["utility"] - none["utility"], abs=2e-3)
    native, loaded = study.values(0.5), study.values(0.5, "input_add")
    assert half["cross_loaded"]["input_add"]["mean"] == round(float((loaded["utility"] - native["utility"]).mean()), 3)
    clips = sorted(path.name for path in (study.folder / "clips" / "0.5-input_add-1.5").glob("*.wav"))
    assert clips == ["0000.wav", "0001.wav", "0002.wav"]


@pytest.mark.slow
def test_a_study_may_sample_with_another_guidance_than_its_run(study: Study) -> None:
    unguided = replace(study, guidance=1.0)
    assert not np.array_equal(unguided.values(0)["utility"], study.values(0)["utility"])
    assert np.array_equal(unguided.values(0)["utility"], study.values(0, guidance=1.0)["utility"])
    assert (study.folder / "values" / "0-native-1.5-guidance-1.json").is_file()


def test_a_difference_within_the_margin_is_equivalent() -> None:
    noise = np.random.default_rng(0).standard_normal(200) * 0.1
    zero = np.zeros(200)
    assert change(noise, zero, 0.1)["equivalent"] and not change(noise + 0.2, zero, 0.1)["equivalent"]
    assert change(zero, zero, 0.1)["equivalent"] and "equivalent" not in change(noise, zero)


def test_the_figure_names_what_it_shows(tmp_path: Path) -> None:
    up, down = {"mean": 0.2, "interval": [0.1, 0.3]}, {"mean": -0.1, "interval": [-0.2, 0.0]}
    figures = {"utility_from_start": up, "score_effect": up, "cross_loaded": {"input_add": down}}
    draw({"0": figures, "1": figures}, 400, ["input_add"], tmp_path / "cross-loading.svg")
    for name in ("cross-loading.svg", "cross-loading-dark.svg"):
        text = (tmp_path / name).read_text()
        assert all(label in text for label in ("input_add", "expert iteration", "score", "What cross-loading changes"))

"""What expert iteration adds to its corpus, exchanged for other clips, at a small size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cross_loading import Study
from benchmarks.kept_clips import ADDITIONS, AdditionStudy, Candidates, figures_of
from plaudit.storage import load_tensors
from tests.benchmarks.expert_iteration import small_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdditionStudy]:
    folder = tmp_path_factory.mktemp("kept-clips")
    run = small_run(folder / "run", seconds=5, candidates=6)
    output = folder / "output"
    stage, updates, prompts = "expert_iteration", None, 3
    candidates = Candidates.of(Study(run, output, stage, updates, prompts))
    return {name: AdditionStudy(run, output / name, stage, updates, prompts, name, candidates) for name in ADDITIONS}


def test_the_kept_clips_give_the_model_of_the_stage(studies: dict[str, AdditionStudy]) -> None:
    kept = studies["kept"]
    weights = kept.model(1).backbone.state_dict()
    expected = load_tensors(kept.run / "expert_iteration" / "model.safetensors")
    assert all((weights[name] == value).all() for name, value in expected.items())


def test_another_training_seed_gives_another_model(studies: dict[str, AdditionStudy]) -> None:
    seed = studies["none"].settings.train.seed
    same, other = (
        replace(studies["none"], folder=studies["none"].folder / str(number), training_seed=number)
        for number in (seed, seed + 1)
    )
    expected, *found = (study.model(1).backbone.state_dict() for study in (studies["none"], same, other))
    equal = [all((weights[name] == value).all() for name, value in expected.items()) for weights in found]
    assert equal == [True, False]


def test_every_addition_is_as_many_clips_as_were_kept_but_the_control(studies: dict[str, AdditionStudy]) -> None:
    rows = {name: [len(source.rows) for source in study.sources()] for name, study in studies.items()}
    corpus = rows["none"][0]
    assert rows == {name: [corpus] if name == "none" else [corpus, 2] for name in ADDITIONS}


def test_the_best_candidates_by_truth(studies: dict[str, AdditionStudy]) -> None:
    best, all_utilities = studies["best by true utility"].clips, studies["kept"].candidates.clips.utilities
    assert best is not None
    assert best.utilities.tolist() == sorted(all_utilities, reverse=True)[:2]


def test_clips_without_flaws_are_better_than_what_an_untrained_model_generates(
    studies: dict[str, AdditionStudy],
) -> None:
    flawless, kept = studies["without flaws"].clips, studies["kept"].clips
    assert flawless is not None and kept is not None
    assert flawless.captions == kept.captions
    assert flawless.utilities.min() > kept.utilities.max()


def test_figures(studies: dict[str, AdditionStudy]) -> None:
    control = studies["none"]
    assert figures_of(control, control)["utility_from_control"]["mean"] == 0
    figures = figures_of(studies["random"], control, [1.0])
    for part, weight in ((figures, None), (figures["guidance_1"], 1.0)):
        after, before = (one.values(1, guidance=weight)["utility"] for one in (studies["random"], control))
        assert part["utility_from_control"]["mean"] == round(float((after - before).mean()), 3)
        assert part["utility"] == round(float(np.mean(after)), 3)
    assert figures["utility"] != figures["guidance_1"]["utility"]

"""Systems of a test from models and from stages of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plaudit import api
from plaudit.sidecars import read_sidecar
from plaudit.studio.database import Clip
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import Participant

PROMPTS = ["slow sad piano", "fast drums", "calm flute"]
TEST = {"pairs_per_listener": 3, "repeats": 0, "obvious": 0, "practice": 0, "minimum_listening": 0}


def prepared(studio: Opened, systems: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A test of systems, after the job that prepares it."""
    sources = [{"name": name, "source": source} for name, source in systems.items()]
    owner = studio.client(studio.token)
    made = done(owner.post("tests", json={"name": "sources", "systems": sources, **TEST, **changes}), 202)
    studio.work()
    return dict(done(owner.get(f"tests/{made['test']['id']}")))


def clips_of(studio: Opened, test: str) -> list[Clip]:
    """The clips of a test."""
    with studio.studio.database.reading() as session:
        return list(session.query(Clip).where(Clip.test_id == test).order_by(Clip.sequence))


def finish(studio: Opened, test: str) -> int:
    """Let one listener answer all pairs; how many there were."""
    owner = studio.client(studio.token)
    done(owner.patch(f"tests/{test}", json={"status": "open"}))
    invitation = done(owner.post(f"tests/{test}/invitations", json={}), 201)["token"]
    opened = done(studio.client().post(f"listen/{invitation}"))
    Participant(studio.client(opened["token"]), opened["listener"]).consent().finish()
    return int(done(owner.get(f"tests/{test}"))["votes"])


def test_models_generate_a_clip_of_each_prompt(studio: Opened) -> None:
    model = {"model": "synthetic-distilled", "seconds": 2.5, "seed": 7}
    systems = {"one step": {**model, "sampling": {"steps": 1}}, "two steps": {**model, "sampling": {"steps": 2}}}
    test = prepared(studio, systems, prompts=PROMPTS)
    assert test["prepared"] and test["pairs"] == 3, test["problem"]
    clips = clips_of(studio, test["id"])
    assert {(clip.model, clip.prompt) for clip in clips} == {(name, p) for name in systems for p in PROMPTS}
    assert all(clip.duration == pytest.approx(2.5, abs=0.1) and clip.seed is not None for clip in clips)
    assert clips[0].seed == clips[1].seed  # both sides of a pair have the same noise
    assert finish(studio, test["id"]) == 3


def test_stages_of_a_run_are_compared_by_the_clips_of_its_evaluation(studio: Opened) -> None:
    runs = studio.studio.settings.runs_folder
    for steps in (1, 2):
        api.generate(
            PROMPTS, model="synthetic-distilled", sampling={"steps": steps, "piece": {"seconds": 2.5}},
            output=runs / "mine" / f"clips-stage{steps}",
        )  # fmt: skip
    systems = {f"stage {n}": {"run": "mine", "stage": f"stage{n}"} for n in (1, 2)}
    test = prepared(studio, systems)
    assert test["prepared"] and test["pairs"] == 3, test["problem"]
    assert {clip.prompt for clip in clips_of(studio, test["id"])} == set(PROMPTS)
    assert finish(studio, test["id"]) == 3


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"run": "mine", "stage": "other"}, "mine/clips-other"),
        ({"run": "none", "stage": "sft"}, "none/clips-sft"),
        ({"model": "none"}, "no model 'none'"),
    ],
)
def test_sources_that_are_not_there(studio: Opened, source: dict[str, Any], problem: str) -> None:
    test = prepared(studio, {"a": source, "b": {"model": "synthetic-distilled", "seconds": 2.5}}, prompts=PROMPTS[:1])
    assert not test["prepared"] and problem in test["problem"] and "\n" not in test["problem"]


@pytest.mark.slow
def test_the_stages_of_a_smoke_run(studio: Opened) -> None:
    folder = studio.studio.settings.runs_folder / "smoke"
    api.run("smoke", output=folder, device="cpu")
    stages = sorted(path.name.removeprefix("clips-") for path in folder.glob("clips-*"))
    before, after = "baseline" if "baseline" in stages else stages[0], stages[-1]
    systems = {name: {"run": "smoke", "stage": name} for name in (before, after)}
    test = prepared(studio, systems)
    assert test["prepared"], test["problem"]
    expected = {str(read_sidecar(path)["prompt"]) for path in Path(folder / f"clips-{after}").glob("*.wav")}
    assert {clip.prompt for clip in clips_of(studio, test["id"])} == expected
    assert finish(studio, test["id"]) == 3

"""From votes to a model, at the smallest size: a test, simulated listeners over the API, a reward, a tuned model."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi")

from plaudit.studio.simulation import simulate
from tests.studio.conftest import Opened, done
from tests.studio.steps import invitation_of, opened_test


def test_votes_become_a_reward_and_a_model_and_a_new_test(studio: Opened, owner: Any) -> None:
    test = opened_test(studio, owner)
    given = simulate(studio.client(), invitation_of(owner, test), listeners=8, votes=44)
    assert given == 44
    results = done(owner.get(f"tests/{test}/results"))
    assert done(owner.get(f"tests/{test}"))["votes"] == 44 and results

    body = {"name": "ours", "tests": [test], "with_shipped": True}
    job = done(owner.post("rewards", json=body), 202)["id"]
    studio.work()
    trained = done(owner.get(f"jobs/{job}"))
    assert trained["status"] == "done", trained["error"]
    metrics = trained["result"]["metrics"]
    assert sum(metrics["votes"].values()) == 44 and 0 <= metrics["accuracy"] <= 1
    assert metrics["listeners_agree"] is not None and metrics["start_accuracy"] is not None
    listed = {reward["name"]: reward for reward in done(owner.get("rewards"))["items"]}
    assert listed["ours"]["id"] == trained["result"]["reward"]

    body = {"name": "towards our taste!", "reward": "ours", "model": "synthetic-base", "size": "smoke"}
    job = done(owner.post("tunings", json=body), 202)["id"]
    done(owner.post(f"tunings/{job}/test", json={}), 409)
    studio.work()
    tuned = done(owner.get(f"jobs/{job}"))
    assert tuned["status"] == "done", tuned["error"]
    name = tuned["result"]["model"]
    assert name == "towards-our-taste/expert_iteration"
    assert name in {model["name"] for model in done(owner.get("models"))["items"]}

    prompts = tuned["result"]["prompts"][:2]
    made = done(owner.post(f"tunings/{job}/test", json={"prompts": prompts, "pairs_per_listener": 2}), 202)
    assert [system["name"] for system in made["test"]["systems"]] == ["before", "after"]
    assert made["test"]["name"] == "towards-our-taste: before against after"


def test_each_tuning_has_a_run_of_its_own(studio: Opened, owner: Any) -> None:
    (studio.studio.settings.runs_folder / "tuned").mkdir(parents=True)
    names = ["tuned", "tuned", "../..", "a" * 100, "a" * 100]
    made = [done(owner.post("tunings", json={"name": name}), 202)["request"]["name"] for name in names]
    assert made == ["tuned-2", "tuned-3", "tuned-4", "a" * 60, "a" * 60 + "-2"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("rewards", {"tests": ["nothere"]}, 404, "no test"),
        ("rewards", {"tests": []}, 422, "tests"),
        ("rewards", {"tests": ["x"], "fine_tune": "none"}, 404, "no reward"),
        ("tunings", {"model": "nothing"}, 404, "no model"),
        ("tunings", {"model": "synthetic-distilled"}, 422, "tune synthetic-base"),
        ("tunings/nothere/test", {}, 404, "no job"),
    ],
)
def test_what_is_not_there_is_named(owner: Any, path: str, body: dict[str, Any], status: int, said: str) -> None:
    assert said in done(owner.post(path, json=body), status)["detail"]

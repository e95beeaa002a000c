"""From votes to a model, at the smallest size: a test, simulated listeners over the API, a reward, a tuned model."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi")

from plaudit.corpus.sources import synthetic_source
from plaudit.studio.simulation import SimulatedTaste, simulate
from tests.studio.conftest import Opened, done

SETTINGS = {"pairs_per_listener": 6, "repeats": 0, "obvious": 0, "practice": 0, "minimum_listening": 0}


def made_test(studio: Opened, owner: Any, prompts: int = 8) -> str:
    """A test of two numbers of steps, open."""
    systems = [
        {"name": f"{n} steps", "source": {"model": "synthetic-distilled", "sampling": {"steps": n}, "seconds": 3}}
        for n in (1, 2)
    ]
    texts = synthetic_source(5.0).held_out(prompts).prompts
    body = {"name": "steps", "systems": systems, "prompts": texts, **SETTINGS}
    test = done(owner.post("tests", json=body), 202)["test"]["id"]
    studio.work()
    done(owner.patch(f"tests/{test}", json={"status": "open"}))
    return str(test)


def invited(owner: Any, test: str) -> str:
    """The token of a new invitation."""
    url = done(owner.post(f"tests/{test}/invitations", json={"label": "them"}), 201)["url"]
    return str(url).rpartition("/")[2]


def test_votes_become_a_reward_and_a_model_and_a_new_test(studio: Opened, owner: Any) -> None:
    test = made_test(studio, owner)
    given = simulate(studio.client(), invited(owner, test), listeners=8, votes=44)
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

    body = {"reward": "ours", "model": "synthetic-base", "size": "smoke"}
    job = done(owner.post("tunings", json=body), 202)["id"]
    done(owner.post(f"tunings/{job}/test", json={}), 409)
    studio.work()
    tuned = done(owner.get(f"jobs/{job}"))
    assert tuned["status"] == "done", tuned["error"]
    name = tuned["result"]["model"]
    assert name in {model["name"] for model in done(owner.get("models"))["items"]}

    prompts = tuned["result"]["prompts"][:2]
    made = done(owner.post(f"tunings/{job}/test", json={"prompts": prompts, "pairs_per_listener": 2}), 202)
    assert [system["name"] for system in made["test"]["systems"]] == ["before", "after"]


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


def test_simulated_listeners_prefer_clean_audio() -> None:
    import io

    import numpy as np
    import soundfile

    source = synthetic_source(5.0)
    taste, prompt = SimulatedTaste(), source.held_out(1).prompts[0]
    (wave, rate) = next(source.reference(1)[1])
    noisy = wave + 0.1 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)

    def utility(audio: np.ndarray) -> float:
        file = io.BytesIO()
        soundfile.write(file, audio, rate, format="WAV")
        return taste.utility(file.getvalue(), prompt)

    assert utility(wave) > utility(noisy)

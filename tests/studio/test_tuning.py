"""From votes to a model, at the smallest size: a reward, a tuned model, a new test; and jobs that are interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import torch
from safetensors.torch import load_file

from plaudit.studio import jobs
from plaudit.studio.client import StudioClient
from plaudit.studio.database import RewardModel, by_id
from plaudit.studio.settings import StudioSettings
from plaudit.studio.simulation import simulate
from tests.studio.conftest import Opened, Served, done
from tests.studio.steps import invitation_of, opened_test, steps_test

VOTES = 44
TUNING = {"model": "synthetic-base", "size": "smoke", "seconds": 2.5}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One studio for the tests of this module."""
    opened = Opened(StudioSettings(folder=tmp_path_factory.mktemp("tuning") / "studio", device="cpu"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def owner(studio: Opened) -> Any:
    """A client with the role owner."""
    return studio.client(studio.token)


@pytest.fixture(scope="module")
def voted(studio: Opened, owner: Any) -> str:
    """The id of a test with votes of simulated listeners."""
    test = opened_test(studio, owner)
    assert simulate(studio.client(), invitation_of(owner, test), listeners=8, votes=VOTES) == VOTES
    assert done(owner.get(f"tests/{test}"))["votes"] == VOTES
    return test


def finished(studio: Opened, owner: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The job of a request, once it is done."""
    job = done(owner.post(path, json=body), 202)["id"]
    studio.work()
    ended = done(owner.get(f"jobs/{job}"))
    assert ended["status"] == "done", ended["error"]
    return dict(ended)


def test_votes_become_a_reward_and_a_model_and_a_new_test(studio: Opened, owner: Any, voted: str) -> None:
    trained = finished(studio, owner, "rewards", {"name": "ours", "tests": [voted], "with_shipped": True})
    metrics = trained["result"]["metrics"]
    assert metrics["votes"] == VOTES and metrics["folds"] == metrics["prompts"] == 8
    low, high = metrics["accuracy_interval"]
    assert 0 <= low <= metrics["accuracy"] <= high <= 1
    gap = metrics["accuracy"] - metrics["baseline_accuracy"]["mean"]
    assert metrics["difference"]["mean"] == pytest.approx(gap) and metrics["baseline"] == "synthetic"
    assert metrics["listeners_agree"] is not None and not metrics["votes_seen_before"]
    listed = {reward["name"]: reward for reward in done(owner.get("rewards"))["items"]}
    assert listed["ours"]["id"] == trained["result"]["reward"]

    body = {**TUNING, "name": "towards our taste!", "reward": "ours"}
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


def test_a_reward_trained_further_on_the_same_votes_says_so(studio: Opened, owner: Any, voted: str) -> None:
    first = finished(studio, owner, "rewards", {"name": "first", "tests": [voted]})["result"]
    again = finished(studio, owner, "rewards", {"name": "again", "tests": [voted], "fine_tune": first["reward"]})
    metrics = again["result"]["metrics"]
    assert (metrics["start_from"], metrics["baseline"]) == (first["reward"], first["reward"])
    assert metrics["votes_seen_before"] and metrics["earlier_tests"] == [voted]


@pytest.mark.slow
def test_a_reward_trained_from_nothing_is_compared_with_the_shipped_one(studio: Opened, owner: Any, voted: str) -> None:
    trained = finished(studio, owner, "rewards", {"name": "new", "tests": [voted], "with_shipped": False})
    metrics = trained["result"]["metrics"]
    assert (metrics["start_from"], metrics["baseline"]) == (None, "synthetic")
    ours = finished(studio, owner, "rewards", {"name": "further", "tests": [voted]})["result"]["metrics"]
    assert metrics["baseline_accuracy"] == ours["baseline_accuracy"], "the same reward on the same votes"


def test_each_tuning_has_a_run_of_its_own(studio: Opened, owner: Any) -> None:
    (studio.studio.settings.runs_folder / "tuned").mkdir(parents=True)
    names = ["tuned", "tuned", "../..", "a" * 100, "a" * 100]
    queued = [done(owner.post("tunings", json={"name": name}), 202) for name in names]
    for job in queued:  # or the tests after this one would carry them out
        done(owner.post(f"jobs/{job['id']}/cancel"))
    runs = [job["request"]["name"] for job in queued]
    assert runs == ["tuned-2", "tuned-3", "tuned-4", "a" * 60, "a" * 60 + "-2"]


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


# Jobs that are interrupted


class Killed(BaseException):
    """What a SIGKILL leaves behind, as far as the disk and the database go."""


class Interrupted(jobs.JobContext):
    """Interrupts a job at the first progress with a label that begins so; `how` is called there."""

    label = ""
    how: Callable[[Interrupted], None]

    def progress(self, done: int, total: int, *args: Any, label: str | None = None, **kwargs: Any) -> None:
        if (label or "").startswith(self.label) and done:
            self.how()
        super().progress(done, total, *args, label=label, **kwargs)

    def kill(self) -> None:
        """End it at once."""
        raise Killed

    def cancel(self) -> None:
        """Ask it to stop."""
        with self.database.transaction() as session:
            jobs.cancel(session, self.job_id)


def interrupt(studio: Opened, job: str, label: str, how: Callable[[Interrupted], None]) -> None:
    """Run a queued job until it reports progress with the label."""
    settings, database = studio.studio.settings, studio.studio.database
    row = jobs.claim(database, "w", "main")
    assert row is not None and row.id == job
    context = type("Context", (Interrupted,), {"label": label, "how": how})(database, settings, job)
    if how is Interrupted.kill:
        with pytest.raises(Killed):
            jobs.KINDS[row.kind].function(context, row.request)
        jobs.requeue_interrupted(database)
    else:
        with pytest.raises(jobs.Cancelled):
            jobs.KINDS[row.kind].function(context, row.request)
        jobs.finish(database, job, "cancelled")


def weights(studio: Opened | Served, job: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that a tuning or a reward training left."""
    if job["kind"] == "tune":
        return load_file(studio.studio.settings.runs_folder / job["result"]["model"] / "model.safetensors")
    with studio.studio.database.reading() as session:
        folder = studio.studio.settings.layout.root / by_id(session, RewardModel, job["result"]["reward"]).path
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["expert_iteration", "crpo", "nft"])
def test_an_interrupted_tuning_goes_on_and_gives_the_same_model(studio: Opened, owner: Any, recipe: str) -> None:
    body = {**TUNING, "recipe": recipe}
    whole = finished(studio, owner, "tunings", body)
    name = f"interrupted-{recipe}"
    job = done(owner.post("tunings", json={**body, "name": name}), 202)["id"]
    interrupt(studio, job, "candidates", Interrupted.kill)
    interrupt(studio, job, "training", Interrupted.cancel)
    ended = done(owner.get(f"jobs/{job}"))
    assert (ended["status"], ended["result"], ended["error"]) == ("cancelled", None, None)
    assert not any(model["name"].startswith(f"{name}/") for model in done(owner.get("models"))["items"])
    done(owner.post(f"tunings/{job}/test", json={}), 409)
    done(owner.post(f"jobs/{job}/retry"))
    studio.work()
    again = done(owner.get(f"jobs/{job}"))
    assert again["status"] == "done", again["error"]
    assert same(weights(studio, whole), weights(studio, again))


def test_an_interrupted_reward_training_gives_the_same_reward(studio: Opened, owner: Any, voted: str) -> None:
    body = {"name": "interrupted", "tests": [voted]}
    whole = finished(studio, owner, "rewards", body)
    job = done(owner.post("rewards", json=body), 202)["id"]
    interrupt(studio, job, "encoding", Interrupted.kill)
    interrupt(studio, job, "training", Interrupted.cancel)
    ended = done(owner.get(f"jobs/{job}"))
    assert ended["status"] == "cancelled" and ended["result"] is None
    assert job not in [reward["job_id"] for reward in done(owner.get("rewards"))["items"]]
    done(owner.post(f"jobs/{job}/retry"))
    studio.work()
    again = done(owner.get(f"jobs/{job}"))
    assert again["result"]["metrics"] == whole["result"]["metrics"]
    assert same(weights(studio, whole), weights(studio, again))


@pytest.mark.slow
def test_a_tuning_whose_worker_is_killed(tmp_path: Path) -> None:
    running = Served(tmp_path / "studio", worker=True)
    try:
        with StudioClient(running.address, running.token) as client:
            body = {**TUNING, "recipe": "crpo"}
            whole = client.wait(client.post("tunings", body)["id"], timeout=300)
            killed = client.post("tunings", body)["id"]
            for label in ("candidates", "training"):
                wait_for(client, killed, label)
                os.kill(running.worker, signal.SIGKILL)
                time.sleep(0.5)
            ended = client.wait(killed, timeout=300)
            assert ended["attempts"] == 3
            assert same(weights(running, whole), weights(running, ended))

            cancelled = client.post("tunings", body)["id"]
            wait_for(client, cancelled, "candidates")
            client.post(f"jobs/{cancelled}/cancel")
            began = time.monotonic()
            while client.get(f"jobs/{cancelled}")["status"] != "cancelled":
                time.sleep(0.05)
            assert time.monotonic() - began < 10
            client.post(f"jobs/{cancelled}/retry")
            assert same(weights(running, whole), weights(running, client.wait(cancelled, timeout=300)))
    finally:
        running.stop()


@pytest.mark.slow
def test_a_reward_training_whose_worker_is_killed(tmp_path: Path) -> None:
    running = Served(tmp_path / "studio", worker=True)
    try:
        with StudioClient(running.address, running.token) as client:
            made = client.post("tests", steps_test())
            client.wait(made["job"], timeout=120)
            test = made["test"]["id"]
            client.patch(f"tests/{test}", {"status": "open"})
            client.wait(client.post("simulations", {"test": test, "listeners": 8})["id"], timeout=120)
            body = {"name": "ours", "tests": [test]}
            whole = client.wait(client.post("rewards", body)["id"], timeout=300)
            killed = client.post("rewards", body)["id"]
            while client.get(f"jobs/{killed}")["status"] == "queued":
                time.sleep(0.01)
            os.kill(running.worker, signal.SIGKILL)
            ended = client.wait(killed, timeout=300)
            assert ended["attempts"] == 2 and ended["result"]["metrics"] == whole["result"]["metrics"]
            assert same(weights(running, whole), weights(running, ended))
    finally:
        running.stop()


def wait_for(client: StudioClient, job: str, label: str) -> None:
    """Wait until a job reports progress with a label that begins so."""
    while not ((client.get(f"jobs/{job}")["progress"] or {}).get("label") or "").startswith(label):
        time.sleep(0.02)

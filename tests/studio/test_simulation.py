"""Simulated listeners: their votes, jobs of them over a real port, and such a job killed, cancelled and tried again."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

import soundfile
import torch
from sqlalchemy import func, select

from plaudit.audio import read_audio, write_wav
from plaudit.corpus.sources import synthetic_source
from plaudit.studio import jobs
from plaudit.studio.client import StudioClient
from plaudit.studio.database import Assignment, Job, Listener, Vote, by_id
from plaudit.studio.listening.stimuli import at_loudness
from plaudit.studio.simulation import SimulatedTaste, run_simulation
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import utility
from plaudit.synthetic.probes import load_probes, measure
from tests.studio.conftest import Served
from tests.studio.steps import steps_test


def test_simulated_listeners_prefer_clean_audio() -> None:
    source = synthetic_source(5.0)
    taste, prompt = SimulatedTaste(), source.held_out(1).prompts[0]
    (wave, rate) = next(source.reference(1)[1])
    noisy = wave + 0.1 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)

    def utility(audio: np.ndarray) -> float:
        file = io.BytesIO()
        soundfile.write(file, audio, rate, format="WAV")
        return taste.utility(file.getvalue(), prompt)

    assert utility(wave) > utility(noisy)


def work(running: Served) -> None:
    """Run the queued jobs in this process; the server answers in its thread."""
    jobs.run_queued(running.studio.database, running.studio.settings)


def opened(running: Served, client: StudioClient, **changes: Any) -> str:
    """A test that is open."""
    test = str(client.post("tests", steps_test(**changes))["test"]["id"])
    work(running)
    client.patch(f"tests/{test}", {"status": "open"})
    return test


def votes_by_listener(running: Served) -> dict[str, int]:
    """How many votes each listener gave."""
    with running.studio.database.reading() as session:
        query = (
            select(Listener.id, func.count(Vote.id))
            .join(Assignment, Assignment.listener_id == Listener.id)
            .join(Vote, Vote.assignment_id == Assignment.id)
            .group_by(Listener.id)
        )
        return {id: count for id, count in session.execute(query)}


def test_the_copies_of_a_listening_test_have_the_utility_of_the_clips(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(24, 5.0, 7001)
    clips = [corpus.render(clip) for clip in corpus.clips]
    copies = []
    for wave in clips:
        write_wav(tmp_path / "copy.wav", at_loudness("a clip", wave, corpus.rate).wave, corpus.rate)
        copies.append(read_audio(tmp_path / "copy.wav")[0])
    probes, truths = load_probes(), [clip.caption_truth for clip in corpus.clips]
    before, after = (
        utility(measure(probes, torch.from_numpy(np.stack(waves))), truths).numpy() for waves in (clips, copies)
    )
    assert np.std(before) > 1
    assert np.abs(after - before).max() < 0.05 and abs((after - before).mean()) < 0.01


def test_a_job_of_simulated_listeners_votes_over_the_port(served: Served) -> None:
    with StudioClient(served.address, served.token) as client:
        test = opened(served, client, prompts=3)
        job = client.post("simulations", {"test": test, "listeners": 4})
        work(served)
        result = client.wait(job["id"], timeout=1)["result"]
        info = client.get(f"tests/{test}")
        # Each listener has the three pairs.
        assert result["votes"] == info["votes"] == 12 and info["completed"] == 4
        truths = {row["system"]: row["utility"]["mean"] for row in result["true_utilities"]}
        assert truths["1 steps"] < truths["2 steps"]
        assert client.get(f"tests/{test}/results")["true_utilities"] == result["true_utilities"]


def test_a_simulation_that_was_killed_goes_on_with_its_listeners(served: Served) -> None:
    class Killed(BaseException):
        pass

    class Dying(jobs.JobContext):
        def progress(self, done: int, total: int, *args: Any, label: str | None = None, **kwargs: Any) -> None:
            if label == "simulated listeners" and done == 5:
                raise Killed

    with StudioClient(served.address, served.token) as client:
        test = opened(served, client, prompts=4)
        job = client.post("simulations", {"test": test, "listeners": 9, "votes": 10})
        database = served.studio.database
        row = jobs.claim(database, "w", "main")
        assert row is not None
        with pytest.raises(Killed):
            run_simulation(Dying(database, served.studio.settings, row.id), row.request)
        assert sorted(votes_by_listener(served).values()) == [1, 4]
        jobs.requeue_interrupted(database)
        work(served)
        assert client.wait(job["id"], timeout=1)["result"]["votes"] == 10
        assert sorted(votes_by_listener(served).values()) == [2, 4, 4]
        assert [link["listeners"] for link in client.items(f"tests/{test}/invitations")] == [3]


def test_a_cancelled_simulation_goes_on_when_it_is_tried_again(served: Served) -> None:
    class Cancelling(jobs.JobContext):
        def progress(self, done: int, total: int, *args: Any, label: str | None = None, **kwargs: Any) -> None:
            if label == "simulated listeners" and done == 3:
                with self.database.transaction() as session:
                    by_id(session, Job, self.job_id).cancel_requested = True
            super().progress(done, total, *args, label=label, **kwargs)

    with StudioClient(served.address, served.token) as client:
        test = opened(served, client, prompts=4)
        job = client.post("simulations", {"test": test, "listeners": 2})
        row = jobs.claim(served.studio.database, "w", "main")
        assert row is not None
        with pytest.raises(jobs.Cancelled):
            run_simulation(Cancelling(served.studio.database, served.studio.settings, row.id), row.request)
        jobs.finish(served.studio.database, row.id, "cancelled")
        assert client.get(f"tests/{test}")["votes"] == 3
        client.post(f"jobs/{job['id']}/retry")
        work(served)
        assert client.wait(job["id"], timeout=1)["result"]["votes"] == 8
        assert list(votes_by_listener(served).values()) == [4, 4]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompts": ["any music"] * 1}, "know the held-out prompts of the synthetic world only"),
        ({"screening": "huggins"}, "without a headphone screening"),
        ({"show_prompt": False}, "set show_prompt"),
    ],
)
def test_tests_that_are_not_for_simulated_listeners(served: Served, changes: dict[str, Any], problem: str) -> None:
    with StudioClient(served.address, served.token) as client:
        request = steps_test(prompts=1) | changes
        test = str(client.post("tests", request)["test"]["id"])
        work(served)
        client.patch(f"tests/{test}", {"status": "open"})
        job = client.post("simulations", {"test": test, "listeners": 1})
        work(served)
        failed = client.get(f"jobs/{job['id']}")
        assert failed["status"] == "failed" and problem in failed["error"] and "\n" not in failed["error"]


@pytest.mark.slow
def test_a_simulation_whose_worker_is_killed(tmp_path: Path) -> None:
    running = Served(tmp_path / "studio", worker=True)
    try:
        with StudioClient(running.address, running.token) as client:
            made = client.post("tests", steps_test(prompts=8))
            client.wait(made["job"], timeout=120)
            test = made["test"]["id"]
            client.patch(f"tests/{test}", {"status": "open"})
            job = client.post("simulations", {"test": test, "listeners": 40, "votes": 200})
            for votes in (20, 60):
                while client.get(f"tests/{test}")["votes"] < votes:
                    time.sleep(0.02)
                os.kill(running.worker, signal.SIGKILL)
                time.sleep(0.5)
            ended = client.wait(job["id"], timeout=240)
            assert ended["attempts"] == 3 and ended["result"]["votes"] == client.get(f"tests/{test}")["votes"] == 200
            assert sum(votes_by_listener(running).values()) == 200
            assert max(votes_by_listener(running).values()) <= 6
    finally:
        running.stop()

"""`plaudit studio --demo`: what it leaves, a restart in its middle, and a job of it that was cancelled."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from typer.testing import CliRunner

from plaudit.cli.main import app
from plaudit.corpus.sources import synthetic_source
from plaudit.studio import jobs
from plaudit.studio.client import StudioClient
from plaudit.studio.demo import PROMPTS, Demo, DemoSize
from plaudit.studio.tuning import HELD_OUT
from tests.studio.conftest import Served

SMALLEST = DemoSize(clips=1, prompts=4, seconds=2.5, listeners=8, votes=60, tuning="smoke", takes=1)
KINDS = ["generate", "prepare-test", "simulate", "train-reward", "tune", "prepare-test", "simulate"]


def work_until(running: Served, demo: Demo, kinds: int) -> None:
    """Run queued jobs in this process until so many are done, or the demo is."""
    while demo.is_alive():
        row = jobs.claim(running.studio.database, "w", "main")
        if row is not None:
            jobs.run(running.studio.database, running.studio.settings, row)
            kinds -= 1
            if not kinds:
                return
        time.sleep(0.05)


def test_its_prompts_are_held_out_and_not_those_of_tunings() -> None:
    held_out = synthetic_source(5.0).held_out(HELD_OUT + len(PROMPTS)).prompts
    assert list(PROMPTS) == held_out[HELD_OUT:]


def test_it_is_an_option() -> None:
    assert "--demo" in CliRunner().invoke(app, ["studio", "--help"]).output


def test_a_restart_does_nothing_twice(tmp_path: Path) -> None:
    jobs.load_kinds()
    lines: list[str] = []
    for attempt in range(2):
        running = Served(tmp_path / "studio", worker=False)
        demo = Demo(running.studio, lines.append, SMALLEST)
        demo.start()
        if not attempt:
            work_until(running, demo, 1)
        with StudioClient(running.address, running.token) as client:
            while len(lines) < 2 * (attempt + 1) or len(made := list(client.items("jobs"))) < 2:
                time.sleep(0.05)
            assert [(job["kind"], job["status"]) for job in made] == [("prepare-test", "queued"), ("generate", "done")]
            assert len(list(client.items("tests"))) == 1
        demo.stop()
        running.stop()
        assert not demo.is_alive() and "demo: done" not in lines


@pytest.mark.slow
def test_all_of_it_with_a_restart_and_a_job_that_is_cancelled(tmp_path: Path) -> None:
    jobs.load_kinds()
    lines: list[str] = []
    running = Served(tmp_path / "studio", worker=False)
    demo = Demo(running.studio, lines.append, SMALLEST)
    demo.start()
    work_until(running, demo, 3)
    demo.stop()
    running.stop()
    assert not demo.is_alive() and "demo: done" not in lines

    running = Served(tmp_path / "studio", worker=False)
    with StudioClient(running.address, running.token) as client:
        demo = Demo(running.studio, lines.append, SMALLEST)
        demo.start()
        while len(queued := list(client.items("jobs", status="queued"))) == 0:
            time.sleep(0.05)
        client.post(f"jobs/{queued[0]['id']}/cancel")
        while not any("cancelled" in line for line in lines):
            time.sleep(0.05)
        client.post(f"jobs/{queued[0]['id']}/retry")
        work_until(running, demo, 99)
        assert lines[-1] == "demo: done", lines

        assert [job["kind"] for job in client.items("jobs")][::-1] == KINDS
        assert len(list(client.clips(job=list(client.items("jobs"))[-1]["id"]))) == 2
        tuned, compared = client.items("tests")
        assert compared["votes"] == 60 and tuned["votes"] > 0
        assert [row["name"] for row in client.get("rewards")["items"] if row["source"] == "studio"] == ["demo"]
        truths = client.get(f"tests/{compared['id']}/results")["true_utilities"]
        assert [row["system"] for row in truths] == [row["name"] for row in compared["systems"]]

        again = Demo(running.studio, lines.append, SMALLEST)
        again.start()
        again.join(30)
        assert not again.is_alive() and len(list(client.items("jobs"))) == len(KINDS)
    running.stop()

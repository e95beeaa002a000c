"""Runs, their models and reports, and comparisons."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from plaudit.places import SHIPPED_MODELS
from tests.studio.conftest import Opened, done


def make_run(root: Path, name: str) -> Path:
    """What a run folder holds that the studio reads: two steps, of which one is finished, a model and a report."""
    folder = root / name
    for number, step in enumerate(("sft", "crpo")):
        (folder / step).mkdir(parents=True)
        (folder / step / "step.json").write_text(json.dumps({"run": "x", "step": step}))
        os.utime(folder / step / "step.json", (number, number))
    (folder / "sft" / "done.json").write_text(json.dumps({"seconds": 1.5}))
    for file in SHIPPED_MODELS["synthetic-distilled"].iterdir():
        shutil.copy(file, folder / "sft")
    (folder / "run.json").write_text(json.dumps({"kind": "a run"}))
    (folder / "recipe.yaml").write_text("name: smoke\nstages: []\n")
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("<h1>Report</h1><script>alert(1)</script>")
    return folder


def test_runs_with_their_steps_models_and_reports(studio: Opened, owner: Any) -> None:
    runs = studio.studio.settings.runs_folder
    make_run(runs, "mine")
    (runs / "no-run").mkdir()
    [run] = done(owner.get("runs"))["items"]
    assert run == done(owner.get("runs/mine")) == {
        "name": "mine", "recipe": "smoke", "models": ["mine/sft"], "folders": [],
        "steps": [
            {"name": "sft", "finished": True, "seconds": 1.5}, {"name": "crpo", "finished": False, "seconds": None},
        ],
        "report": "/api/v1/runs/mine/report/index.html",
    }  # fmt: skip
    page = owner.get("runs/mine/report/index.html")
    assert page.text.startswith("<h1>Report") and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy
    assert owner.get("runs/no-run").status_code == 404


def test_damaged_runs_are_listed_as_far_as_they_can_be_read(studio: Opened, owner: Any) -> None:
    folder = make_run(studio.studio.settings.runs_folder, "broken")
    (folder / "recipe.yaml").write_text("name: [")
    (folder / "sft" / "done.json").write_text("{")
    (folder / "sft" / "config.json").write_text("[]")
    [run] = done(owner.get("runs"))["items"]
    assert (run["recipe"], run["models"], run["steps"][0]["finished"]) == (None, [], False)


def test_systems_that_are_not_there(studio: Opened, owner: Any) -> None:
    make_run(studio.studio.settings.runs_folder, "mine")
    for name in ("runs/unknown", "runs/mine:unknown", "clips/unknown", "uploads/unknown:sft"):
        answer = owner.post("comparisons", json={"a": "runs/mine:sft", "b": name})
        assert answer.status_code == 404, (name, answer.text)
    for name in ("/etc", "runs/../x", "mine", "runs/mine:../x", "file.py:X", "runs/.x"):
        answer = owner.post("comparisons", json={"a": "runs/mine:sft", "b": name})
        assert answer.status_code in (404, 422), name
    assert done(owner.get("jobs"))["items"] == []


@pytest.mark.slow
def test_two_generations_are_compared(studio: Opened, owner: Any) -> None:
    folders = []
    for guidance in (1.0, 5.0):
        request = {
            "prompts": ["slow piano", "fast drums", "calm guitar"], "guidance": guidance, "steps": 4, "seconds": 3.0,
            "seed": 1,
        }  # fmt: skip
        job = done(owner.post("generations", json=request), 202)
        folders.append(f"clips/{job['id']}")
    assert studio.work() == 2
    job = done(owner.post("comparisons", json={"a": folders[0], "b": folders[1]}), 202)
    assert studio.work() == 1
    job = done(owner.get(f"jobs/{job['id']}"))
    assert job["status"] == "done", job["error"]
    assert "reward" in {row["metric"] for row in job["result"]["comparison"]["comparisons"]}
    page = owner.get(job["result"]["page"].removeprefix("/api/v1/")).text
    assert "<html" in page
    assert f"slow piano, {folders[0]}" in page  # they have one prompt

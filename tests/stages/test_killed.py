"""Training that is killed at any moment, or stopped by SIGTERM, ends with the weights of uninterrupted training."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from plaudit.storage import load_tensors
from plaudit.training.distributed import accelerator_for
from tests.stages.noise import tiny_shards
from tests.stages.worker import Job, run_job

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "2"}
"""Two threads share the clips of each update."""
LOOP = {"snapshot_every": 4, "keep_checkpoints": 2}


def start(job: Job, folder: Path, *launcher: str) -> subprocess.Popen[str]:
    path = folder / "jobs.json"
    path.write_text(json.dumps([asdict(job)]))
    command = [sys.executable, *launcher, "-m", "tests.stages.worker", str(path)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Forty updates that nobody interrupted."""
    place = tmp_path_factory.mktemp("whole")
    tiny_shards(place / "shards")
    job = Job(str(place / "run"), str(place / "shards"), settings={"steps": 40, "checkpoint_every": 3}, loop=LOOP)
    finish(job, place)
    return job


def finish(job: Job, folder: Path) -> None:
    """Run a job to its end, in a process of its own."""
    process = start(job, folder)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr[-2000:]


def files(job: Job) -> dict[str, dict[str, torch.Tensor]]:
    return {str(p.relative_to(job.folder)): load_tensors(p) for p in sorted(Path(job.folder).rglob("*.safetensors"))}


@pytest.mark.slow
def test_killed_at_random_moments_it_leaves_the_same_weights_and_snapshots(whole: Job, tmp_path: Path) -> None:
    job, dice, reached = Job(**asdict(whole) | {"folder": str(tmp_path / "run"), "pause": 0.1}), random.Random(1), 0
    for _ in range(4):
        process = start(job, tmp_path)
        assert process.stdout is not None
        first = process.stdout.readline()  # the moments are within training, not within the imports before it
        assert first.startswith("update "), first
        time.sleep(dice.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached = max(reached, int(first.split()[1]))
    assert 1 < reached < 40  # it went on where it was, and there was something left to do
    finish(Job(**asdict(job) | {"pause": 0.0}), tmp_path)
    ours, theirs = files(job), files(whole)
    assert ours.keys() == theirs.keys() and "snapshots/00000004-0.050.safetensors" in ours
    for path in theirs:
        assert all(torch.equal(ours[path][name], theirs[path][name]) for name in theirs[path]), path
    assert not list(Path(job.folder).rglob("*.partial"))
    logs = [(Path(j.folder) / "metrics.jsonl").read_text().splitlines() for j in (job, whole)]
    assert [json.loads(line)["step"] for line in logs[0]] == [json.loads(line)["step"] for line in logs[1]]


@pytest.mark.slow
def test_two_processes_told_to_stop_go_on_as_one(whole: Job, tmp_path: Path) -> None:
    job = Job(**asdict(whole) | {"folder": str(tmp_path / "run"), "pause": 0.1})
    process = start(job, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert process.stdout is not None
    for line in process.stdout:
        if "update 7" in line:
            break
    process.terminate()  # torchrun tells its workers
    _, stderr = process.communicate()
    assert process.returncode != 0
    assert "Preempted: stopped by SIGTERM after update" in stderr, stderr[-2000:]
    kept = sorted(int(path.stem) for path in (Path(job.folder) / "checkpoints").iterdir())
    assert 7 <= kept[-1] < 40
    run_job(Job(**asdict(job) | {"pause": 0.0}), accelerator_for("no"))
    ours, theirs = (load_tensors(Path(j.folder) / "weights.safetensors") for j in (job, whole))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=0)

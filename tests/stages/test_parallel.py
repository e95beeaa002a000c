"""One update is the same on any number of processes, and so is a run that changes their number on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from plaudit.backbone.compiling import blocks_of
from plaudit.errors import RunError
from plaudit.storage import load_tensors
from plaudit.training.distributed import accelerator_for, rank_slice
from tests.backbone.tiny import tiny_model
from tests.stages.noise import tiny_shards
from tests.stages.worker import Job, run_job

ROOT = Path(__file__).parents[2]


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 12))
def test_shares_cover_an_update_once(batch: int, accumulate: int, processes: int) -> None:
    try:
        shares = [rank_slice(batch, accumulate, rank, processes) for rank in range(processes)]
    except RunError:
        assume(False)
    covered = [(part, row) for s in shares for part in s.parts for row in range(batch)[s.rows]]
    assert sorted(covered) == [(part, row) for part in range(accumulate) for row in range(batch)]
    assert len({(len(s.parts), s.rows.stop - s.rows.start) for s in shares}) == 1


def test_processes_that_cannot_share_are_refused() -> None:
    with pytest.raises(RunError, match="3 processes can't share 2 batches of 32"):
        rank_slice(32, 2, 0, 3)
    assert rank_slice(32, 2, 1, 2).parts == range(1, 2)


def test_the_blocks_of_a_network() -> None:
    model = tiny_model("film")
    assert blocks_of(model) == [*model.joint_blocks, *model.fused_blocks]
    assert blocks_of(nn.Linear(1, 1)) == []


def together(jobs: list[Job], folder: Path) -> None:
    """Run jobs, one after the other, on two processes."""
    path = folder / "jobs.json"
    path.write_text(json.dumps([asdict(job) for job in jobs]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "tests.stages.worker", str(path)], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(folder: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def assert_same(a: str, b: str) -> None:
    """Losses to 1e-5; weights and averages too, whose differences Adam's division enlarges."""
    torch.testing.assert_close(losses(a), losses(b), atol=1e-5, rtol=0)
    for name in ("weights", "averages"):
        ours, theirs = (load_tensors(Path(folder) / f"{name}.safetensors") for folder in (a, b))
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], atol=1e-4, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_runs_change_their_number(tmp_path: Path) -> None:
    tiny_shards(tmp_path / "shards")
    count = iter(range(100))

    def job(like: Job | None = None, **changes: object) -> Job:
        values = asdict(like) if like else {"shards": str(tmp_path / "shards")}
        return Job(**(values | {"folder": str(tmp_path / str(next(count)))} | changes))

    plain = job()
    accumulated = job(settings={"accumulate": 3})  # three batches, each halved
    crpo = job(stage="crpo", settings={"accumulate": 2})  # two batches, one for each
    raw = job(settings={"weights": "raw", "ema": {"decay": 0.9}})
    for each in (plain, accumulated, crpo, raw):
        run_job(each, accelerator_for("no"))
        shutil.copytree(each.folder, f"{each.folder}-begun")
        for left in ("weights.safetensors", "averages.safetensors"):
            (Path(f"{each.folder}-begun") / left).unlink()
    fsdp = {"strategy": "fsdp", "activation_checkpointing": True}
    pairs = [
        (plain, job(plain)),
        (plain, job(plain, loop=fsdp)),
        (accumulated, job(accumulated)),
        (accumulated, job(accumulated, loop=fsdp)),
        (crpo, job(crpo)),
        (crpo, job(crpo, loop=fsdp)),
        (raw, job(raw, loop=fsdp)),
        (plain, job(plain, folder=f"{plain.folder}-begun")),  # from the checkpoint of one process
        (accumulated, job(accumulated, folder=f"{accumulated.folder}-begun", loop=fsdp)),
    ]
    together([other for _, other in pairs], tmp_path)
    for one, two in pairs:
        assert_same(one.folder, two.folder)
    for folder in (pairs[1][1].folder, pairs[2][1].folder):  # and from that of two, sharded or not
        (Path(folder) / "weights.safetensors").unlink()
    run_job(pairs[1][1], accelerator_for("no"))
    assert_same(plain.folder, pairs[1][1].folder)
    run_job(pairs[2][1], accelerator_for("no"))
    assert_same(accumulated.folder, pairs[2][1].folder)
    for one, two in (pairs[1], pairs[6]):
        means = [json.loads((Path(j.folder) / "mean.jsonl").read_text().splitlines()[0]) for j in (one, two)]
        assert means[0]["step"] == 6 and means[0]["mean"] == pytest.approx(means[1]["mean"], abs=1e-6)


@pytest.mark.slow
def test_adapters_train_on_two_processes_as_on_one(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the finetune extra is not installed")
    tiny_shards(tmp_path / "shards")
    like = {"shards": str(tmp_path / "shards"), "settings": {"lora": {"rank": 2}}}
    one, ddp, fsdp = (Job(folder=str(tmp_path / name), **like) for name in ("one", "ddp", "fsdp"))
    fsdp.loop = {"strategy": "fsdp"}
    run_job(one, accelerator_for("no"))
    together([ddp, fsdp], tmp_path)
    assert_same(one.folder, ddp.folder)
    assert_same(one.folder, fsdp.folder)

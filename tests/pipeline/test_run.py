"""A whole run, small: it reaches a report, is skipped when done, and survives being killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import plaudit
from plaudit.cli.main import app
from plaudit.errors import RunError
from plaudit.evaluate.pages.text import number
from plaudit.evaluate.values import Values
from plaudit.pipeline.report import rewrite_report
from plaudit.pipeline.steps import required_steps, steps
from plaudit.recipe import load_recipe
from plaudit.storage import read_json, write_json
from tests.cli.command import plaudit as plaudit_command
from tests.test_runs import everything
from tools.listening_page import write_listening_page

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

TINY = [
    "corpus.size=100",
    "corpus.seconds=3",
    "votes.pairs=60",
    "votes.validation_pairs=20",
    "reward.max_epochs=2",
    "stages.sft.train.steps=12",
    "stages.sft.train.checkpoint_every=4",
    "stages.expert_iteration.candidates=8",
    "stages.expert_iteration.keep=4",
    "stages.expert_iteration.train.steps=6",
    "stages.expert_iteration.fine_tune.steps=3",
    "stages.pairs.captions=4",
    "stages.pairs.pairs=4",
    "stages.crpo.train.steps=4",
    "sampling.steps=2",
    "sampling_batch=8",
    "evaluate.prompts=4",
    "evaluate.reference_clips=8",
    "evaluate.sweep_prompts=2",
    "evaluate.sweep_scores=[-1,1]",
    "evaluate.audio_players=2",
]


def words(folder: Path) -> list[str]:
    changes = [part for change in TINY for part in ("--set", change)]
    return ["run", "smoke", "--output", str(folder), *changes]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "plaudit", *words(folder)]


def weights(folder: Path) -> dict[str, str]:
    """The digest of every model that the run left."""
    found = sorted(folder.glob("*/model.safetensors"))
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    app(words(folder), standalone_mode=False)
    return folder


def test_the_listening_page_plays_every_stage(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "old.ogg").write_bytes(b"of an earlier page")
    page = write_listening_page(whole, tmp_path, prompts=2).read_text()
    clips = sorted(path.name for path in (tmp_path / "audio").iterdir())
    stages = ["cross_load", "crpo", "expert_iteration", "finished", "sft", "unscored"]
    assert clips == [f"{number}-{stage}.ogg" for number in (1, 2) for stage in stages]
    assert all(page.count(f"(audio/{clip})") == 1 for clip in clips)
    values = Values.read(whole / "values-sft")
    assert f"## 1. {values.prompts[0]}" in page and f"| {number(float(values.clip('utility')[1]), 2)} |" in page


def test_the_run_reaches_a_report_with_every_stage(whole: Path) -> None:
    assert (whole / "report" / "index.html").is_file()
    results = json.loads((whole / "report" / "report.json").read_text())
    names = [stage["key"] for stage in results["stages"]]
    assert names == ["unscored", "sft", "expert_iteration", "cross_load", "crpo", "finished"]
    assert set(weights(whole)) == {"reward", "sft", "expert_iteration", "cross_load", "crpo"}
    kept = json.loads((whole / "expert_iteration" / "round-1" / "kept.json").read_text())
    assert len(kept) == 4


def test_how_training_is_carried_out_makes_no_step_stale() -> None:
    plain, other = (
        load_recipe("smoke", changes)
        for changes in ([], ["training_loop.strategy=fsdp", "training_loop.sample_every=5"])
    )
    assert [(s.name, s.settings) for s in steps(plain)] == [(s.name, s.settings) for s in steps(other)]
    assert plain.fingerprint() == other.fingerprint() != load_recipe("smoke", ["backbone.seed=1"]).fingerprint()


def test_a_stage_can_be_called_alone(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = steps(load_recipe("smoke"))
    assert [step.name for step in required_steps("sft", chain)] == [
        "corpus", "shards", "systems", "features", "votes", "reward", "labels", "sft"
    ]  # fmt: skip
    assert required_steps("report", chain) == chain
    with pytest.raises(RunError, match="no step 'sftt'; its steps are corpus, shards"):
        required_steps("sftt", chain)
    before = {path: path.stat().st_mtime_ns for path in whole.glob("*/done.json")}
    (whole / "crpo" / "done.json").unlink()
    app([*words(whole), "--only", "crpo"], standalone_mode=False)
    assert capsys.readouterr().out == f"Crpo: {whole / 'crpo'}\n"
    changed = {path.parent.name for path in whole.glob("*/done.json") if path.stat().st_mtime_ns != before.get(path)}
    assert changed == {"crpo"}


def test_cross_loading_changes_no_shared_weight(whole: Path) -> None:
    from plaudit.storage import load_tensors

    before, after = (load_tensors(whole / n / "model.safetensors") for n in ("expert_iteration", "cross_load"))
    shared = before.keys() & after.keys()
    assert any(name.startswith("score.embedder") for name in shared)
    assert all((before[name] == after[name]).all() for name in shared)


def test_a_second_run_does_nothing(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name[0] != "."}
    app(words(whole), standalone_mode=False)
    reported = [line for line in capsys.readouterr().err.splitlines() if ": " in line]
    assert reported and all(line.endswith(": done") for line in reported)
    changed = [p.name for p, stamp in before.items() if p.stat().st_mtime_ns != stamp and p.name != "recipe.yaml"]
    assert not changed


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 10])
def test_killed_at_random_moments_it_ends_with_the_same_weights(whole: Path, tmp_path: Path, kills: int) -> None:
    folder, dice = tmp_path / "run", random.Random(3)
    taken = sum(json.loads(p.read_text())["seconds"] for p in whole.glob("*/done.json"))
    for _ in range(kills):
        process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(4, 4 + taken / kills))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(folder), check=True, capture_output=True)
    assert weights(folder) == weights(whole)
    clips = [{p.name: p.read_bytes() for p in (run / "clips-crpo").glob("*.wav")} for run in (folder, whole)]
    assert clips[0] == clips[1]


def without(whole: Path, folder: Path, *steps: str) -> Path:
    """A copy of a finished run in which some steps, and all that need them, are still to be done."""
    shutil.copytree(whole, folder)
    for step in (*steps, "expert_iteration", "cross_load", "pairs", "crpo"):
        shutil.rmtree(folder / step)
    return folder


def test_sigterm_in_training_leaves_a_checkpoint_and_a_line(whole: Path, tmp_path: Path) -> None:
    folder = without(whole, tmp_path / "run", "sft")
    ended = threading.Event()

    def stop_once_it_trains() -> None:
        while not (folder / "sft" / "metrics.jsonl").exists() and not ended.wait(0.05):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_once_it_trains)
    stopper.start()
    try:
        done = plaudit_command(*words(folder), "--only", "sft", "--set", "stages.sft.train.steps=5000")
    finally:
        ended.set()
        stopper.join()
    assert done.code == 128 + signal.SIGTERM
    last = done.err.splitlines()[-1]
    assert last.startswith("plaudit: stopped by SIGTERM after update ") and last.endswith("run it again to continue")
    updates = int(last.split("update ")[1].split()[0])
    assert (folder / "sft" / "checkpoints" / f"{updates:08d}.pt").is_file()


@pytest.mark.slow
def test_two_processes_run_the_stages_with_validation_samples_and_snapshots(whole: Path, tmp_path: Path) -> None:
    tracked = find_spec("tensorboard") is not None  # the extra track
    folder = without(whole, tmp_path / "run", "sft")
    loop = [
        "training_loop.validate_every=6", "training_loop.validation_clips=8", "training_loop.sample_every=12",
        "training_loop.sample_prompts=[calm piano]",
        "training_loop.snapshot_every=6", "training_loop.strategy=fsdp",
        *(["training_loop.trackers=[tensorboard]"] if tracked else []),
    ]  # fmt: skip
    changes = [part for change in loop for part in ("--set", change)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = [*launcher, *command(folder)[1:], *changes, "--only", "crpo"]
    done = subprocess.run(together, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"Crpo: {folder / 'crpo'}"]  # said once
    assert "labels: done" in done.stderr and "sft: started" in done.stderr
    assert weights(folder).keys() == weights(whole).keys()
    sft = folder / "sft"
    assert [json.loads(line)["step"] for line in (sft / "validation.jsonl").read_text().splitlines()] == [6, 12]
    assert (sft / "samples" / "00000012" / "00.wav").is_file()
    assert len(list((sft / "snapshots").iterdir())) == 4
    assert bool(list((sft / "tensorboard").rglob("events.out.*"))) == tracked
    again = subprocess.run([*command(folder), *changes, "--only", "crpo"], capture_output=True, text=True)
    assert all(line.endswith(": done") for line in again.stderr.splitlines())


def test_a_damaged_shard_is_encoded_again_or_named(whole: Path, tmp_path: Path) -> None:
    from plaudit.corpus.shards import ShardSet
    from plaudit.errors import CorpusError

    copy = tmp_path / "shards"
    copy.mkdir()
    for path in (whole / "shards").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damaged = next(copy.glob("latents-*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(CorpusError, match=damaged.name):
        ShardSet(copy)


@pytest.mark.slow
def test_the_report_is_written_again_from_what_was_recorded(whole: Path, tmp_path: Path) -> None:
    """The same bytes from either command: no other step is touched; times, memory and machine are the run's."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    run = read_json(folder / "report" / "report.json")["run"]
    rewrite_report(folder)
    again = read_json(folder / "report" / "report.json")["run"]
    assert (again["machine"], again["peak_memory"]) == (run["machine"], run["peak_memory"])
    before = everything(folder)
    (folder / "report" / "index.html").unlink()
    environment = os.environ | {"OMP_NUM_THREADS": str(int(run["machine"]["threads"]) + 1)}
    done = subprocess.run(
        [sys.executable, "-m", "plaudit", "report", str(folder)], check=True, capture_output=True, text=True,
        env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith(f"Report: {folder / 'report' / 'index.html'}\n") and done.stderr == ""
    assert everything(folder) == before


def test_the_report_of_what_is_not_finished_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)

    def refused(said: str) -> None:
        before = everything(folder)
        with pytest.raises(RunError, match=said) as caught:
            rewrite_report(folder)
        assert "\n" not in str(caught.value) and everything(folder) == before

    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("beta: 2000.0", "beta: 500.0"))
    refused(f"crpo has another stages.crpo.beta than {folder}/recipe.yaml has; run it with: plaudit run")
    (folder / "recipe.yaml").write_text(recipe)
    done = read_json(folder / "crpo" / "done.json")
    write_json(folder / "crpo" / "done.json", done | {"output": "of another model"})
    refused("clips-crpo used an earlier crpo than the present one")
    write_json(folder / "crpo" / "done.json", done)
    for step in ("crpo", "clips-crpo", "values-crpo", "sweep-crpo"):
        shutil.rmtree(folder / step)
    refused(f"no finished crpo, clips-crpo, values-crpo and 1 more steps; run it with: plaudit run {folder}/recipe")
    (folder / "run.json").unlink()
    refused("is not a run folder")


@pytest.mark.slow
def test_a_changed_setting_replaces_nothing_but_starts_a_new_run(whole: Path, tmp_path: Path) -> None:
    before = everything(whole)
    beta = ["--set", "stages.crpo.beta=500"]
    refused = subprocess.run([*command(whole), *beta], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert refused.returncode == 1 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert "replace crpo (stages.crpo.beta was 2000.0, is now 500.0); clips-crpo (crpo is made again)" in refused.stderr
    assert f"--from {whole} -o NEW" in refused.stderr
    assert everything(whole) == before
    new = tmp_path / "new"
    begin = [sys.executable, "-m", "plaudit", "run", "--from", str(whole), "-o", str(new), *beta]
    made = subprocess.run([*begin, "--only", "crpo"], check=True, capture_output=True, text=True)
    states = dict(line.split(": ") for line in made.stderr.splitlines() if line.count(": ") == 1)
    assert {name for name, state in states.items() if state != "shared"} == {"crpo"}
    assert everything(whole) == before
    assert (new / "sft" / "model.safetensors").samefile(whole / "sft" / "model.safetensors")
    assert weights(new)["sft"] == weights(whole)["sft"]
    assert load_recipe(str(new / "recipe.yaml")).stage("crpo").model_dump()["beta"] == 500


def test_wrong_usage_of_from_is_one_line(whole: Path, tmp_path: Path) -> None:
    for arguments in (["run"], ["run", "smoke", "--from", str(whole)]):
        with pytest.raises(typer.BadParameter):
            app(arguments, standalone_mode=False)
    for source, said in ((tmp_path, "is not a run folder; give --from"), (whole, "--from and --output are both")):
        with pytest.raises(RunError, match=said):
            app(["run", "smoke", "--from", str(source), "-o", str(whole)], standalone_mode=False)


@pytest.mark.slow
def test_another_objective_makes_its_stage_stale_and_no_other(whole: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "run", tmp_path / "source"
    shutil.copytree(whole, folder)
    shutil.copytree(Path(plaudit.__file__).parent, source / "plaudit", ignore=shutil.ignore_patterns("weights"))
    (source / "plaudit" / "weights").symlink_to(Path(plaudit.__file__).parent / "weights")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [*command(folder), *arguments]
        return subprocess.run(asked, capture_output=True, text=True, cwd=source, env=ENVIRONMENT)

    same = run()
    assert same.returncode == 0 and all(line.endswith(": done") for line in same.stderr.splitlines())
    objective = source / "plaudit" / "stages" / "crpo.py"
    text = objective.read_text()
    objective.write_text(text.replace("def crpo_loss(", "# another one\ndef crpo_loss("))
    assert run().returncode == 0
    assert "-0.5 * beta * bracket" in text
    objective.write_text(text.replace("-0.5 * beta * bracket", "0.5 * beta * bracket"))
    refused = run()
    assert refused.returncode == 1
    assert "this would replace crpo (its code changed (plaudit.stages.crpo)); clips-crpo" in refused.stderr
    made = run("--yes")
    assert made.returncode == 0, made.stderr
    states = dict(line.split(": ", 1) for line in made.stderr.splitlines() if line.count(": ") == 1)
    assert states["sft"] == states["pairs"] == states["values-sft"] == "done" and states["crpo"] == "replaced"
    assert weights(folder)["crpo"] != weights(whole)["crpo"] and weights(folder)["sft"] == weights(whole)["sft"]
    assert states["clips-crpo"] == states["sweep-crpo"] == states["report"] == "replaced"

"""States of steps in a run folder, with a chain of steps that only write files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import RunError
from plaudit.pipeline.run_folder import Origin, Run, open_run
from plaudit.pipeline.runner import Outlook, RunContext, Step, outlook, run_chain
from plaudit.recipe import load_recipe
from tests.test_runs import everything

KIND = "a run of recipe toy"
RECIPE = load_recipe("smoke", ["precision=no"])
NEEDS: dict[str, tuple[str, ...]] = {"data": (), "train": ("data",), "tune": ("train",), "clips": ("tune",),
                                     "other": ("data",), "report": ("clips", "other")}  # fmt: skip


def write(run: RunContext, folder: Path, name: str, text: str, needs: Sequence[str]) -> None:
    """Writes `text`, and a digest of the output of the steps before."""
    before = [(run.path(need) / "result").read_text() for need in needs]
    (folder / "result").write_text(f"{text} {hashlib.sha256(repr(before).encode()).hexdigest()[:8]}")
    (folder / "log").write_text("of no consequence")


def chain(code: dict[str, str] | None = None, **settings: object) -> list[Step]:
    """A step's setting is what it writes; code: digests that stand in for those of its source."""
    found = []
    for name, needs in NEEDS.items():
        value = settings.get(name, "plain")
        make = partial(write, name=name, text=str(value).lower(), needs=needs)
        step = Step(name, {f"{name}.value": value}, needs, make, read_later=("result",))
        step.__dict__["code"] = {"toy": (code or {}).get(name, "1")}
        found.append(step)
    return found


class RecordingReporter:
    """Records the state of each step, and the steps whose replacement it had to approve."""

    def __init__(self, approves: bool = False) -> None:
        self.states: dict[str, str] = {}
        self.replaced: list[Outlook] = []
        self.approves = approves

    def step(self, name: str, state: str) -> None:
        self.states[name] = state

    def note(self, line: str) -> None:
        pass

    @contextmanager
    def progress(self, label: str):  # type: ignore[no-untyped-def]
        yield lambda done, total: None

    def approve(self, lost: Sequence[Outlook]) -> bool:
        self.replaced += lost
        return self.approves

    @property
    def busy(self) -> list[str]:
        """What was not found done."""
        return [name for name, state in self.states.items() if state not in ("done", "shared")]


def go(folder: Path, steps: list[Step], approves: bool = False, source: Path | None = None) -> RecordingReporter:
    reporter = RecordingReporter(approves)
    run_chain(RECIPE, folder, steps, reporter, KIND, reporter.approve, source)
    return reporter


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    assert set(go(tmp_path / "run", chain()).states.values()) == {"started"}
    return tmp_path / "run"


def test_no_step_runs_twice(run_folder: Path) -> None:
    before = everything(run_folder)
    reporter = go(run_folder, chain())
    assert reporter.busy == [] and reporter.replaced == []
    assert everything(run_folder) == before


def test_nothing_is_replaced_without_approval(run_folder: Path) -> None:
    before = everything(run_folder)
    with pytest.raises(RunError) as refused:
        go(run_folder, chain(tune="new"))
    said = str(refused.value)
    assert 'replace tune (tune.value was "plain", is now "new"); clips (tune is made again) and 1 more' in said
    assert "add --yes to replace" in said and f"--from {run_folder} -o NEW" in said and "\n" not in said
    assert everything(run_folder) == before
    reporter = go(run_folder, chain(tune="new"), approves=True)
    states = [(one.step, one.state) for one in reporter.replaced]
    assert states == [(name, "replaced") for name in ("tune", "clips", "report")]
    assert reporter.busy == ["tune", "clips", "report"]
    assert (run_folder / "tune" / "result").read_text().startswith("new")
    assert go(run_folder, chain(tune="new")).busy == []


def test_an_unchanged_output_leaves_later_steps_done(run_folder: Path) -> None:
    reporter = go(run_folder, chain(tune="PLAIN"), approves=True)  # another setting, and the same file
    assert [one.step for one in reporter.replaced] == ["tune", "clips", "report"]
    assert reporter.busy == ["tune"]
    assert go(run_folder, chain({"train": "2"}, tune="PLAIN"), approves=True).busy == ["train"]


def test_changed_code_makes_a_step_stale(run_folder: Path) -> None:
    with pytest.raises(RunError, match=r"this would replace train \(its code changed \(toy\)\)"):
        go(run_folder, chain({"train": "2"}))


def test_a_removed_step_runs_again_and_dependents_only_if_it_differs(run_folder: Path) -> None:
    before = everything(run_folder)
    shutil.rmtree(run_folder / "tune")
    reporter = go(run_folder, chain())
    assert reporter.busy == ["tune"] and reporter.replaced == []
    assert {n: b for n, b in everything(run_folder).items() if not n.startswith("tune/")} == {
        n: b for n, b in before.items() if not n.startswith("tune/")
    }
    for name in ("tune", "train"):
        shutil.rmtree(run_folder / name)
    assert go(run_folder, chain()).busy == ["train", "tune"]
    shutil.rmtree(run_folder / "tune")
    with pytest.raises(RunError, match=r"replace clips \(tune is made again\); report"):
        go(run_folder, chain(tune="new"))
    assert not (run_folder / "tune").exists()
    assert go(run_folder, chain(tune="new"), approves=True).busy == ["tune", "clips", "report"]


def test_an_unexpectedly_different_output_replaces_nothing_without_approval(run_folder: Path) -> None:
    """The same settings and code, and another result: as of another machine."""
    shutil.rmtree(run_folder / "tune")
    steps = chain()
    steps[2] = replace(steps[2], make=partial(write, name="tune", text="noise", needs=("train",)))
    steps[2].__dict__["code"] = {"toy": "1"}
    with pytest.raises(RunError, match=r"replace clips \(tune has other contents\)"):
        go(run_folder, steps)
    assert (run_folder / "tune" / "done.json").exists() and (run_folder / "clips" / "done.json").exists()
    reporter = go(run_folder, steps, approves=True)
    assert reporter.busy == ["clips", "report"]


def test_a_started_step_is_replaced_only_with_approval(run_folder: Path) -> None:
    (run_folder / "tune" / "done.json").unlink()
    with pytest.raises(RunError, match="this would replace tune"):
        go(run_folder, chain(tune="new"))
    reporter = go(run_folder, chain())
    assert reporter.states["tune"] == "resumed" and reporter.replaced == []


def test_a_changed_result_is_detected_before_any_work(run_folder: Path) -> None:
    (run_folder / "tune" / "log").write_text("changed")
    assert go(run_folder, chain()).busy == []
    (run_folder / "tune" / "result").write_text("other weights")
    with pytest.raises(RunError, match=r"tune/result is not as the step left it; restore it, or remove .*tune to make"):
        go(run_folder, chain())


def test_a_new_run_shares_unchanged_steps_of_an_old_one_and_does_not_alter_it(run_folder: Path, tmp_path: Path) -> None:
    before, new = everything(run_folder), tmp_path / "new"
    reporter = go(new, chain(tune="new"), source=run_folder)
    assert reporter.states == {"data": "shared", "train": "shared", "tune": "started", "clips": "started",
                           "other": "shared", "report": "started"}  # fmt: skip
    assert everything(run_folder) == before
    assert go(new, chain(tune="new"), source=run_folder).busy == []
    fresh = tmp_path / "fresh"
    go(fresh, chain(tune="new"))
    results = [{p.parent.name: p.read_text() for p in folder.glob("*/result")} for folder in (new, fresh)]
    assert results[0] == results[1]
    go(new, chain(data="new", tune="new"), approves=True)
    assert everything(run_folder) == before


def test_unfinished_changed_and_foreign_steps_are_not_shared(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "train" / "done.json").unlink()
    assert go(tmp_path / "a", chain(), source=run_folder).states["train"] == "started"
    (run_folder / "data" / "result").write_text("changed")
    with pytest.raises(RunError, match="data/result is not as the step left it"):
        go(tmp_path / "b", chain(), source=run_folder)


@pytest.mark.parametrize("where", list(NEEDS))
def test_a_user_folder_with_a_steps_name_stops_the_run_before_any_work(tmp_path: Path, where: str) -> None:
    go(tmp_path, chain()[:1])
    if where == "data":
        shutil.rmtree(tmp_path / "data")
    (tmp_path / where).mkdir()
    before = everything(tmp_path)
    with pytest.raises(RunError, match=f"{where} was not made by this run; move it away"):
        go(tmp_path, chain(), approves=True)
    assert everything(tmp_path) == before


def test_a_refused_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "mine.csv").write_text("1")
    before = everything(tmp_path)
    with pytest.raises(RunError, match="neither empty nor a folder that plaudit made for a run of recipe toy"):
        go(tmp_path, chain(), approves=True)
    assert everything(tmp_path) == before


def test_the_outlook_of_each_step(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "other" / "done.json").unlink()
    shutil.rmtree(run_folder / "clips")
    found = outlook(chain(train="new"), Run(run_folder))
    assert [(one.step, one.state) for one in found] == [
        ("data", "done"), ("train", "replaced"), ("tune", "replaced"), ("clips", "started"), ("other", "resumed"),
        ("report", "replaced"),
    ]  # fmt: skip
    assert found[2].reasons == ("train is made again",)
    (tmp_path / "empty").mkdir()
    assert {one.state for one in outlook(chain(), Run(tmp_path / "empty"))} == {"started"}


@settings(deadline=None, max_examples=10)
@given(
    first=st.dictionaries(st.sampled_from(list(NEEDS)), st.sampled_from(["a", "b", "A"])),
    second=st.dictionaries(st.sampled_from(list(NEEDS)), st.sampled_from(["a", "b", "A"])),
    removed=st.sets(st.sampled_from(list(NEEDS))),
)
def test_results_equal_those_of_a_fresh_run_whatever_steps_exist(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, str], second: dict[str, str], removed: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    go(folder / "run", chain(**first))
    for name in removed:
        shutil.rmtree(folder / "run" / name)
    go(folder / "run", chain(**second), approves=True)
    go(folder / "fresh", chain(**second))
    go(folder / "shared", chain(**second), source=folder / "run")
    results = [
        {p.parent.name: p.read_text() for p in (folder / name).glob("*/result")} for name in ("run", "fresh", "shared")
    ]
    assert results[0] == results[1] == results[2]
    for name in ("run", "fresh", "shared"):
        assert go(folder / name, chain(**second)).busy == []


def test_a_half_emptied_step_needs_no_approval(run_folder: Path) -> None:
    with open_run(run_folder, KIND) as run:
        run._clear("tune")
    reporter = go(run_folder, chain())
    assert reporter.replaced == [] and reporter.busy == ["tune"]


def test_settings_are_compared_as_they_are_written(tmp_path: Path) -> None:
    step = Step("a", {"x": (1, 2)}, (), write)
    assert step.origin({}).settings == {"x": [1, 2]}
    assert step.origin({}).differences(Origin({"x": [1, 2]}, {}, step.code, {})) == []

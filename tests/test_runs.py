"""Run folders: what is made once, what is made again, and who may write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.errors import RunError
from plaudit.runs import Run, fingerprint, opened


def _make(log: list[str], text: str):
    def make(folder: Path) -> None:
        log.append(text)
        (folder / "result").write_text(text)

    return make


def test_a_step_is_made_once_per_key(tmp_path: Path) -> None:
    run, log, states = Run(tmp_path), [], []
    announce = lambda name, state: states.append(state)  # noqa: E731
    run.step("a", "key 1", _make(log, "first"), announce)
    run.step("a", "key 1", _make(log, "again"), announce)
    path = run.step("a", "key 2", _make(log, "changed"), announce)
    assert log == ["first", "changed"]
    assert states == ["started", "done", "started"]
    assert (path / "result").read_text() == "changed"


def test_a_step_that_failed_is_continued_in_its_folder_but_not_with_another_key(tmp_path: Path) -> None:
    run, states = Run(tmp_path), []

    def half(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise RuntimeError

    seen: list[bool] = []
    for key in ("key", "other"):
        with pytest.raises(RuntimeError):
            run.step("a", "key", half, lambda name, state: states.append(state))
        make = lambda folder: seen.append((folder / "half").exists())  # noqa: E731
        run.step("a", key, make, lambda name, state: states.append(state))
        (tmp_path / "a" / "done.json").unlink()
    assert seen == [True, False]
    assert states == ["started", "resumed", "resumed", "started"]


def test_a_damaged_done_file_means_the_step_is_made_again(tmp_path: Path) -> None:
    run, log = Run(tmp_path), []
    run.step("a", "key", _make(log, "x"), lambda n, s: None)
    (tmp_path / "a" / "done.json").write_text("{")
    run.step("a", "key", _make(log, "y"), lambda n, s: None)
    assert log == ["x", "y"]


def test_fingerprints_tell_apart_what_differs() -> None:
    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1) != fingerprint(a=2, b=1)


def test_a_run_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from plaudit.runs import opened\n"
        f"with opened(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid}"), opened(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with opened(tmp_path) as run:  # the lock of a killed process holds nobody up
        assert run.folder == tmp_path


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another"), opened(tmp_path / "file"):
        pass

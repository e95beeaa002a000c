"""Run folders: finished steps are kept or replaced, foreign files are left alone, and one process writes at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plaudit.errors import RunError
from plaudit.pipeline.run_folder import Origin, Run, fingerprint, open_run

KIND = "a run of recipe toy"
ONE, OTHER = Origin({"x": 1}), Origin({"x": 2})
Fill = Callable[[Path], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with open_run(tmp_path / "run", KIND) as run:
        return run


def writes(text: str) -> Fill:
    return lambda folder: (folder / "result").write_text(text) and None


def run_step(run: Run, name: str, origin: Origin, fill: Fill, replace: bool = False) -> str:
    """Run a step unless it is done; its state."""
    state = run.begin(name, origin, {}, replace)
    if state != "done":
        fill(run.folder / name)
        run.finish(name, 1.0, ["**/*"], {})
    return state


def everything(folder: Path) -> dict[str, bytes | str]:
    """The content of every file in a folder; of a link, its target."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


def test_a_step_runs_once_and_is_replaced_only_with_permission(run: Run) -> None:
    assert run_step(run, "a", ONE, writes("first")) == "started"
    assert run_step(run, "a", ONE, writes("again")) == "done"
    (run.folder / "a" / "inner").mkdir()
    before = everything(run.folder)
    with pytest.raises(RunError, match="was made from something else; it is kept"):
        run_step(run, "a", OTHER, writes("changed"))
    assert everything(run.folder) == before
    assert run_step(run, "a", OTHER, writes("changed"), replace=True) == "replaced"
    assert sorted(p.name for p in (run.folder / "a").iterdir()) == ["done.json", "result", "step.json"]
    assert (run.folder / "a" / "result").read_text() == "changed"


def test_a_failed_step_is_resumed_and_needs_permission_to_be_replaced(run: Run) -> None:
    def half(folder: Path) -> None:
        (folder / "half").write_text("provenance")
        raise ZeroDivisionError

    seen: list[bool] = []
    with pytest.raises(ZeroDivisionError):
        run_step(run, "a", ONE, half)
    with pytest.raises(RunError, match="it is kept"):
        run.begin("a", OTHER, {})
    assert run_step(run, "a", ONE, lambda folder: seen.append((folder / "half").exists())) == "resumed"
    (run.folder / "a" / "done.json").unlink()
    assert run_step(run, "a", OTHER, lambda folder: seen.append((folder / "half").exists()), True) == "replaced"
    assert seen == [True, False]


def test_a_step_with_a_damaged_done_file_is_resumed(run: Run) -> None:
    run_step(run, "a", ONE, writes("x"))
    (run.folder / "a" / "done.json").write_text("{")
    assert run_step(run, "a", ONE, writes("y")) == "resumed"
    assert (run.folder / "a" / "result").read_text() == "y"


@pytest.mark.parametrize("moment", range(8))
def test_a_step_still_belongs_to_its_run_after_a_kill_while_it_is_emptied(
    run: Run, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir()
        for name in ("one", "two", "inner/three"):
            (folder / name).write_text(name)

    run_step(run, "a", ONE, fill)
    left = [moment]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **named)

        return call

    for name in ("unlink", "rmdir", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    try:
        run.begin("a", OTHER, {}, replace=True)
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    state = run.begin("a", OTHER, {}, replace=True)  # not refused as foreign
    files = sorted(p.name for p in (run.folder / "a").iterdir() if not p.name.startswith(".step.json."))
    assert state in ("started", "replaced", "resumed") and files == ["step.json"]
    assert run_step(run, "a", OTHER, writes("new")) == "resumed"


FOREIGN: dict[str, Callable[[Path], object]] = {
    "files": lambda place: (place.mkdir(), (place / "report.docx").write_text("mine")),
    "empty": lambda place: place.mkdir(),
    "file": lambda place: place.write_text("mine"),
    "dangling link": lambda place: place.symlink_to("nowhere"),
    "link to a folder": lambda place: (
        (place.parent / "elsewhere").mkdir(), (place.parent / "elsewhere" / "x").write_text("mine"),
        place.symlink_to("elsewhere"),
    ),
    "marker that is no JSON": lambda place: (place.mkdir(), (place / "step.json").write_text("{")),
    "marker without a run": lambda place: (
        place.mkdir(), (place / "step.json").write_text('{"run": null, "step": "a"}')
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_from_elsewhere_is_left_alone(run: Run, kind: str) -> None:
    FOREIGN[kind](run.folder / "a")
    before = everything(run.folder)
    with pytest.raises(
        RunError, match=r"a was not made by this run; move it away, or choose another --output"
    ) as caught:
        run.begin("a", ONE, {}, replace=True)
    assert everything(run.folder) == before and "\n" not in str(caught.value)


def test_a_step_folder_moved_from_another_run_or_renamed_is_refused(run: Run, tmp_path: Path) -> None:
    with open_run(tmp_path / "other", KIND) as other:
        run_step(other, "a", ONE, writes("theirs"))
    os.rename(other.folder / "a", run.folder / "a")
    with pytest.raises(RunError, match="was not made by this run"):
        run.begin("a", ONE, {}, replace=True)
    os.rename(run.folder / "a", run.folder / "b")
    with pytest.raises(RunError, match="was not made by this run"):
        run.begin("b", ONE, {}, replace=True)


def test_a_linked_step_folder_is_read_but_not_replaced(run: Run, tmp_path: Path) -> None:
    run_step(run, "a", ONE, writes("x"))
    os.rename(run.folder / "a", tmp_path / "disk")
    (run.folder / "a").symlink_to(tmp_path / "disk")
    assert run_step(run, "a", ONE, writes("y")) == "done"
    with pytest.raises(RunError, match="is a link"):
        run_step(run, "a", OTHER, writes("y"), replace=True)
    assert (tmp_path / "disk" / "result").read_text() == "x"


@pytest.mark.parametrize("name", ["report", "music.wav", ".git", "recipe.yaml", "step.json"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RunError, match="neither empty nor a folder that plaudit made"), open_run(tmp_path, KIND):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_folder_of_another_recipe_is_refused_and_an_empty_folder_is_used(run: Run, tmp_path: Path) -> None:
    said = "holds a run of recipe toy, not a run of recipe other; choose another --output"
    with pytest.raises(RunError, match=said), open_run(run.folder, "a run of recipe other"):
        pass
    (tmp_path / "empty").mkdir()
    with open_run(tmp_path / "empty", KIND) as new:
        assert new.identity not in (None, run.identity)
    with open_run(tmp_path / "empty", KIND) as again:
        assert again.identity == new.identity
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another"), open_run(tmp_path / "file", KIND):
        pass


def test_a_finished_step_is_verified_by_content(run: Run) -> None:
    run_step(run, "a", ONE, writes("same"))
    result = run.folder / "a" / "result"
    run.verify("a")
    os.utime(result, ns=(1, 1))
    (run.folder / "a" / "notes").write_text("of a user")
    run.verify("a")  # touched, not changed
    result.write_text("evil")
    with pytest.raises(RunError, match="result is not as the step left it; restore it, or remove"):
        run.verify("a")
    result.unlink()
    with pytest.raises(RunError, match="result is missing or cannot be read"):
        run.verify("a")


def test_provenance_is_not_part_of_a_steps_output(run: Run) -> None:
    outputs = []
    for version, size in (("a", 1), ("b", 1), ("b", 2)):
        text = f'{{"size": {size}, "provenance": {{"version": "{version}"}}}}'
        run_step(
            run,
            "a",
            Origin({"provenance": version, "size": size}),
            lambda f, t=text: (f / "config.json").write_text(t),
            True,
        )
        outputs.append(run.finished("a").output)
    assert outputs[0] == outputs[1] != outputs[2]


def test_only_what_later_steps_read_counts_as_output(run: Run) -> None:
    def fill(text: str) -> Fill:
        def write(folder: Path) -> None:
            (folder / "inner").mkdir(exist_ok=True)
            (folder / "inner" / "clip.wav").write_text("sound")
            (folder / "clip.json").write_text(text)
            (folder / ".lock").write_text(text)

        return write

    outputs = []
    for number, text in enumerate("xy"):
        run.begin("a", Origin({"n": number}), {}, replace=True)
        fill(text)(run.folder / "a")
        run.finish("a", 1.0, ["*.wav", "*/*.wav"], {})
        outputs.append(run.finished("a"))
    assert outputs[0].output == outputs[1].output and list(outputs[0].files) == ["inner/clip.wav"]


def test_a_shared_step_does_not_depend_on_its_source(run: Run, tmp_path: Path) -> None:
    run_step(run, "a", ONE, writes("x"))
    before = everything(run.folder)
    with open_run(tmp_path / "new", KIND) as new:
        assert new.share("a", run)
        assert new.finished("a") == run.finished("a")
        assert (new.folder / "a" / "result").stat().st_ino == (run.folder / "a" / "result").stat().st_ino
        assert run_step(new, "a", ONE, writes("y")) == "done"
        assert run_step(new, "a", OTHER, writes("y"), replace=True) == "replaced"
    assert everything(run.folder) == before


def test_files_that_cannot_be_linked_are_copied(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_step(run, "a", ONE, writes("x"))

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with open_run(tmp_path / "new", KIND) as new:
        assert new.share("a", run)
        new.verify("a")
    assert (new.folder / "a" / "result").stat().st_ino != (run.folder / "a" / "result").stat().st_ino


def test_an_interrupted_share_starts_over(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_step(run, "a", ONE, lambda folder: [(folder / str(n)).write_text("x") for n in range(3)] and None)
    link, left = os.link, [2]

    def some(*names: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        link(*names)

    monkeypatch.setattr(os, "link", some)
    with open_run(tmp_path / "new", KIND) as new:
        with pytest.raises(KeyboardInterrupt):
            new.share("a", run)
        monkeypatch.undo()
        assert new.record("a").origin is None  # type: ignore[union-attr]
        assert new.share("a", run)
        new.verify("a")


def test_a_step_that_changes_while_it_is_shared_is_not_shared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step(run, "a", ONE, writes("x"))
    link = os.link

    def link_after_replacement(source: str, target: str) -> None:
        run_step(run, "a", OTHER, writes("y"), replace=True)
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_replacement)
    with open_run(tmp_path / "new", KIND) as new:
        assert not new.share("a", run)
        assert run_step(new, "a", ONE, writes("z")) == "started"


def test_differences_of_origins_are_named() -> None:
    old = Origin({"beta": 1.0, "gone": True}, {"corpus.table": "a"}, {"m.a": "1", "m.b": "1"}, {"sft": "x"})
    new = Origin({"beta": 2.0, "new": "y"}, {"corpus.table": "b"}, {"m.a": "2", "m.b": "1"}, {"sft": "z"})
    assert new.differences(old) == [
        "beta was 1.0, is now 2.0",
        'new was not set, is now "y"',
        "gone was true, is now not set",
        "the contents of corpus.table changed",
        "its code changed (m.a)",
        "sft has other contents",
    ]
    assert old.differences(old) == [] and old.key != new.key
    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1) != fingerprint(a=2, b=1)


def test_a_run_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from plaudit.pipeline.run_folder import open_run\n"
        f"with open_run(Path({str(tmp_path)!r}), {KIND!r}): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid}"), open_run(tmp_path, KIND):
            pass
    finally:
        holder.kill()
        holder.wait()
    with open_run(tmp_path, KIND) as run:  # the lock of a killed process is free
        assert run.folder == tmp_path

"""Run folders: a folder for each step, with a record of its origin and its output; one process at a time.

`run.json` in the run folder marks it as one of Plaudit's, with its purpose. `step.json` in a step's folder names its
run and its `Origin`; `done.json` marks it as finished. A folder without these is neither changed nor removed.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plaudit.errors import PlauditError, RunError, is_no_room
from plaudit.storage import DONE, STEP, content_digest, differences, digest_of, write_json
from plaudit.writing import locked

RUN, FORMAT = "run.json", 2
LOCK, PROCESS = ".lock", ".pid"


def fingerprint(**parts: Any) -> str:
    """A hash of JSON-able parts."""
    return digest_of(parts)


@dataclass(frozen=True)
class Origin:
    """The inputs that determine a step's output.

    settings: by name. external: digests of files from outside the run (models, tables), by the setting that names them.
    code: digests of the source it runs, by module. inputs: digests of the output of the steps it needs, by step.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """A hash of the origin."""
        return fingerprint(**asdict(self))

    def differences(self, earlier: Origin) -> list[str]:
        """The differences from an earlier origin, as text."""
        settings = differences(earlier.settings, self.settings)
        reasons = [f"{name} was {_shown(old)}, is now {_shown(new)}" for name, (old, new) in settings.items()]
        reasons += [f"the contents of {name} changed" for name in differences(earlier.external, self.external)]
        if modules := list(differences(earlier.code, self.code)):
            more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
            reasons.append(f"its code changed ({', '.join(modules[:3])}{more})")
        return reasons + [f"{name} has other contents" for name in differences(earlier.inputs, self.inputs)]


Lineage = dict[str, list[str]]


@dataclass(frozen=True)
class Finished:
    """The record of a finished step.

    output: a digest of the files that later steps read. files: size, modification time and digest of each of these.
    seconds: of the last process on it. environment: the machine it ran on.
    """

    output: str
    files: dict[str, list[Any]]
    seconds: float
    ended: str
    environment: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """The record in a step's folder.

    origin: None while earlier content is being removed. lineage: for every step it depends on, directly or not, the key
    of its origin and the digest of its output. finished: None for an unfinished step.
    """

    origin: Origin | None
    lineage: Lineage
    finished: Finished | None


class Run:
    """A run folder. To write, open it with `open_run`, which holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def identity(self) -> str | None:
        """A random name of the run; None where the folder is not a run folder."""
        return (_read(self.folder / RUN) or {}).get("identity")

    def record(self, name: str) -> Record | None:
        """The record of a step; None where it has no folder. RunError where the folder is not one of this run's."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        marker = _read(path / STEP) if path.is_dir() else None
        if marker is None or marker.get("run") != self.identity or marker.get("step") != name:
            raise RunError(f"{path} was not made by this run; move it away, or choose another --output")
        done, finished = _read(path / DONE), None
        try:
            origin = None if marker["origin"] is None else Origin(**marker["origin"])
            if origin is not None and done is not None and done.pop("key", None) == origin.key:
                finished = Finished(**done)
            return Record(origin, marker["lineage"], finished)
        except (KeyError, TypeError):
            raise RunError(f"{path / STEP} or {DONE} is damaged; remove {path} to make the step again") from None

    def finished(self, name: str) -> Finished:
        """The record of a finished step; RunError where it is not finished."""
        record = self.record(name)
        if record is None or record.finished is None:
            raise RunError(f"{self.folder / name} is not finished; make it with plaudit run")
        return record.finished

    def key(self, name: str) -> str:
        """The key of a step's origin; RunError where it was not started."""
        record = self.record(name)
        if record is None or record.origin is None:
            raise RunError(f"{self.folder / name} was not made yet; make it with plaudit run")
        return record.origin.key

    def begin(self, name: str, origin: Origin, lineage: Lineage, replace: bool = False) -> str:
        """Prepare the folder of a step: "done" where it is finished, "resumed" where it was started, else "started".

        Content of another origin is removed, and the answer is "replaced"; RunError unless `replace`.
        """
        record, state = self.record(name), "started"
        if record is not None and record.origin is not None:
            if record.origin.key == origin.key:
                return "resumed" if record.finished is None else "done"
            if not replace:
                raise RunError(f"{self.folder / name} was made from something else; it is kept")
            state = "replaced"
        if record is not None:
            self._clear(name)
        self._mark(name, origin, lineage)
        return state

    def finish(self, name: str, seconds: float, read_later: Sequence[str], environment: dict[str, Any]) -> None:
        """Record that a step is finished. read_later: patterns of the files that later steps read."""
        record = self.record(name)
        assert record is not None and record.origin is not None
        files = _described(self.folder / name, read_later)
        output = fingerprint(**{file: facts[-1] for file, facts in files.items()})
        ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        done = Finished(output, files, round(seconds, 2), ended, environment)
        write_json(self.folder / name / DONE, {"key": record.origin.key, **asdict(done)})

    def recorded_again(self, name: str, origin: Origin, lineage: Lineage) -> None:
        """Record another origin for a step's folder, whose content fits it."""
        self._mark(name, origin, lineage)

    def verify(self, name: str) -> None:
        """RunError where the files that later steps read have changed since the step finished.

        A file of the same size and modification time counts as unchanged.
        """
        path = self.folder / name
        for file, (size, changed, digest) in self.finished(name).files.items():
            try:
                state = (path / file).stat()
                same = [state.st_size, state.st_mtime_ns] == [size, changed] or content_digest(path / file) == digest
                harm = "" if same else "is not as the step left it"
            except (OSError, PlauditError):
                harm = "is missing or cannot be read"
            if harm:
                raise RunError(f"{path / file} {harm}; restore it, or remove {path} to make the step again")

    def share(self, name: str, source: Run) -> bool:
        """Link or copy a step that another run has finished; False where that run changes it meanwhile."""
        there, place = source.record(name), source.folder / name
        assert there is not None and there.origin is not None and there.finished is not None
        self._mark(name, None, {})
        self._clear(name)
        try:
            shutil.copytree(
                place, self.folder / name, copy_function=_linked, dirs_exist_ok=True,
                ignore=lambda folder, names: [n for n in names if n.startswith(".") or n in (STEP, DONE)],
            )  # fmt: skip
        except shutil.Error:
            if source.record(name) == there:
                raise
        if source.record(name) != there:
            self._clear(name)
            return False
        self._mark(name, there.origin, there.lineage)
        write_json(self.folder / name / DONE, {"key": there.origin.key, **asdict(there.finished)})
        return True

    def _mark(self, name: str, origin: Origin | None, lineage: Lineage) -> None:
        """Write the marker of a step's folder; a new folder appears with its marker inside."""
        marker = {
            "run": self.identity, "step": name, "origin": None if origin is None else asdict(origin),
            "lineage": lineage,
        }  # fmt: skip
        path, draft = self.folder / name, self.folder / f".{name}.new"
        if path.is_dir():
            write_json(path / STEP, marker)
        else:
            write_json(draft / STEP, marker)
            os.rename(draft, path)

    def _clear(self, name: str) -> None:
        """Remove everything from a step's folder but its marker, which is reset first."""
        path = self.folder / name
        if path.is_symlink():
            raise RunError(f"{path} is a link; move what it leads to into its place, or choose another --output")
        self._mark(name, None, {})
        (path / DONE).unlink(missing_ok=True)
        for child in path.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            elif child.name != STEP:
                child.unlink()


def check_folder(folder: Path, kind: str) -> None:
    """RunError where a folder holds anything but a run of this kind; it may be missing or empty."""
    if not os.path.lexists(folder):
        return
    there = kind_of(folder)
    if there is not None and there != kind:
        raise RunError(f"{folder} holds {there}, not {kind}; choose another --output")
    if there is None and (not folder.is_dir() or [n for n in _names(folder) if not _is_bookkeeping(n)]):
        raise RunError(f"{folder} is neither empty nor a folder that plaudit made for {kind}; choose another --output")


def kind_of(folder: Path) -> str | None:
    """The purpose of a run folder; None where it is none. RunError for one of another version of Plaudit."""
    about = _read(folder / RUN)
    if about is not None and about.get("format") != FORMAT:
        raise RunError(f"{folder} is a run folder of another version of Plaudit; start a new one with -o")
    return None if about is None else str(about.get("kind"))


@contextmanager
def open_run(folder: Path, kind: str) -> Iterator[Run]:
    """The run in `folder`, created if need be, locked against other processes until the block ends.

    kind: its purpose. RunError where it has another one, another process holds it, or it can't be written.
    """
    check_folder(folder, kind)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LOCK, wait=False))
        except BlockingIOError:
            holder = _holder(folder)
            raise RunError(f"{folder} is in use by {holder}; wait for it, or give this run another --output") from None
        except OSError as error:
            if is_no_room(error):
                raise
            raise RunError(f"cannot write to {folder} ({error.strerror}); choose another --output") from None
        stack.callback((folder / PROCESS).unlink, missing_ok=True)
        check_folder(folder, kind)
        (folder / PROCESS).write_text(str(os.getpid()))
        if not (folder / RUN).exists():
            write_json(folder / RUN, {"format": FORMAT, "kind": kind, "identity": secrets.token_hex(8)})
        yield Run(folder)


def _is_bookkeeping(name: str) -> bool:
    """Whether a file of this name may be there before `run.json` is."""
    return name in (LOCK, PROCESS) or name.startswith(f".{RUN}.")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise RunError(f"cannot read {folder} ({error.strerror}); choose another --output") from None


def _holder(folder: Path) -> str:
    with suppress(OSError):
        return f"process {(folder / PROCESS).read_text()}"
    return "another process"


def _read(path: Path) -> dict[str, Any] | None:
    """An object in a JSON file; None where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _described(folder: Path, patterns: Sequence[str]) -> dict[str, list[Any]]:
    """Size, modification time and digest of the files that match a pattern, by path."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    names = {str(path.relative_to(folder)): path for path in paths if path.name not in (STEP, DONE)}
    return {
        name: [names[name].stat().st_size, names[name].stat().st_mtime_ns, content_digest(names[name])]
        for name in sorted(names)
        if not any(part.startswith(".") for part in Path(name).parts)
    }


def _linked(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

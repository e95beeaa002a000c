"""Writing to whatever a user names: files, links, pipes, devices, descriptors, and file systems that lack things."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit import writing
from plaudit.writing import copy_folder, create_file, locked, replacing, write_atomically

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and permissions of POSIX")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: None) -> None:
    write_atomically(tmp_path / "deep" / "new", "x")
    assert stat.S_IMODE((tmp_path / "deep" / "new").stat().st_mode) == 0o640


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o604)
    write_atomically(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o604)


def test_what_fails_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("there", [True, False])
def test_links_stay_and_what_they_point_to_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    if there:
        target.write_text("old")
    (tmp_path / "second").symlink_to("far/target")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    write_atomically(tmp_path / "first", "new")
    assert (tmp_path / "first").is_symlink() and (tmp_path / "second").is_symlink()
    assert target.read_text() == "new" and not target.is_symlink()
    assert os.listdir(tmp_path / "far") == ["target"]


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / "a", "x")
    assert (error.value.errno, error.value.filename) == (errno.ELOOP, str(tmp_path / "a"))


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for name in ("pipe", "link"):
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
        reader.start()
        write_atomically(tmp_path / name, "content")
        reader.join(timeout=10)
    assert got == [b"content", b"content"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="device nodes are made by root alone")
def test_a_device_stays_a_device(tmp_path: Path) -> None:
    device = tmp_path / "full"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        device.open("wb").close()
    except PermissionError:
        pytest.skip("no device nodes here")
    with pytest.raises(OSError) as error:  # every write to it fails as on a full disk
        write_atomically(device, "x")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(device))
    assert stat.S_ISCHR(device.stat().st_mode)


TO_STDOUT = """
import sys
from pathlib import Path
from plaudit.writing import write_atomically
print("before")
write_atomically(Path(sys.argv[1]), "content\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link"])
@pytest.mark.parametrize("to_file", [True, False])
def test_an_open_descriptor_is_written_into_where_it_stands(tmp_path: Path, name: str, to_file: bool) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    command = [sys.executable, "-c", TO_STDOUT, name]
    if to_file:
        with (tmp_path / "out").open("wb") as out:
            subprocess.run(command, stdout=out, cwd=tmp_path, check=True)
        got = (tmp_path / "out").read_bytes()
    else:
        got = subprocess.run(command, capture_output=True, cwd=tmp_path, check=True).stdout
    assert got == b"before\ncontent\nafter\n"
    assert (tmp_path / "link").is_symlink()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as error:
        write_atomically(tmp_path, "x")
    assert error.value.filename == str(tmp_path)


def test_names_may_be_as_long_as_the_system_takes(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("é" * 127), "x")
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / ("x" * 256), "x")
    assert (error.value.errno, error.value.filename) == (errno.ENAMETOOLONG, str(tmp_path / ("x" * 256)))
    assert os.listdir(tmp_path) == ["é" * 127]


def test_names_that_are_not_utf8_get_their_bytes_back(tmp_path: Path) -> None:
    write_atomically(tmp_path / "csv", "caf\udce9.wav")
    assert (tmp_path / "csv").read_bytes() == b"caf\xe9.wav"
    write_atomically(tmp_path / "csv", "half a pair: \ud83d")
    assert (tmp_path / "csv").read_text() == "half a pair: \\ud83d"


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Let a system call fail as it does where the file system doesn't know it."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing.os, name, refused)


@pytest.mark.parametrize("call", ["chmod", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("there", [True, False])
def test_what_a_file_system_does_not_know_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, there: bool
) -> None:
    path = tmp_path / "file"
    if there:
        path.write_text("a longer old content")
        path.chmod(0o601)
    refuse(monkeypatch, call, code)
    write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_is_an_error_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    refuse(monkeypatch, call, errno.EIO)
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / "file", "x")
    assert (error.value.errno, error.value.filename) == (errno.EIO, str(tmp_path / "file"))
    assert os.listdir(tmp_path) == []


def test_a_file_in_a_folder_that_takes_no_others_is_written_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("a longer old content")
    refuse(monkeypatch, "open", errno.EACCES)
    monkeypatch.setattr(writing.tempfile, "gettempdir", lambda: "/nowhere")
    with pytest.raises(OSError):  # neither beside it nor for the time being elsewhere
        write_atomically(path, "new")
    monkeypatch.undo()
    real = os.open

    def only_elsewhere(name: str | Path, *args: int) -> int:
        if Path(name).parent == tmp_path:
            raise PermissionError(errno.EACCES, "no")
        return real(name, *args)

    monkeypatch.setattr(writing.os, "open", only_elsewhere)
    write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "new"


def test_folders_are_copied_without_their_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("c")
    refuse(monkeypatch, "chmod", errno.EPERM)
    copy_folder(tmp_path / "a", tmp_path / "copy")
    assert (tmp_path / "copy" / "b" / "c").read_text() == "c"


def test_a_new_file_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_file(tmp_path / "new" / "a", "first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new" / "a", b"second")
    monkeypatch.setattr("os.link", _no_links)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new" / "a", b"second")
    create_file(tmp_path / "new" / "b", b"third")
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {"a": "first", "b": "third"}


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError) as error, locked(tmp_path / "lock", wait=False):
            pass
        assert error.value.filename == str(tmp_path / "lock")
    with locked(tmp_path / "lock", wait=False):
        pass

"""Writing files and folders whole or not at all, through links and on any file system.

Separate from `storage`, which imports PyTorch: the command line writes with this alone."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOTTY}
"""Errors of file systems without permissions, links or syncing (exFAT, CIFS, FUSE over object stores)."""

_NOT_BESIDE = _UNSUPPORTED | {errno.EROFS, errno.EBUSY, errno.EXDEV}
"""Errors that keep a writable file from being replaced: a folder without permission, a file that is a mount point."""

_MOST_LINKS = 40
_LONGEST = 100
"""Bytes of a name that a partial file's name begins with; with the rest it stays below what any system takes."""


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees all of it or nothing, whatever kills the writer."""
    with replacing(path) as partial:
        partial.write_bytes(encoded(data) if isinstance(data, str) else data)


def create_file(path: Path, data: bytes | str) -> None:
    """Write a new file so that a reader sees all of it or nothing; FileExistsError where the name is taken.

    An existing file is never replaced, even where two processes create it at once.
    """
    content = encoded(data) if isinstance(data, str) else data
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _new_file(path.parent, path.name)
        partial.write_bytes(content)
        sync(partial)
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            with path.open("xb") as file:
                file.write(content)
    except OSError as error:
        raise _about(path, error) from None
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, whole or not at all."""
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder into another, without their permissions, which not every file system has."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy_file(path, target / path.relative_to(source))


def encoded(text: str) -> bytes:
    """Text as UTF-8, in which names that are not UTF-8 are restored to their bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name holds
        return text.encode("utf-8", "backslashreplace")


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: names of files may hold other bytes, JSON half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_stream(path: Path) -> bool:
    """Whether `path` is there and is written into, as a device, a pipe or an open descriptor."""
    try:
        place = _resolved(path)
        mode = None if isinstance(place, int) else _mode(place)
    except OSError:
        return False
    return isinstance(place, int) or (mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, empty at first; at the end of the block its content is what `path` holds.

    A regular file, or one that is not there yet, is replaced at once, so that no reader ever sees part of it. A link
    stays, and what it points to is replaced. Into anything else (a device, a pipe, an open descriptor such as
    /dev/stdout) the content is written. Permissions are those of the file before, or what the user's umask says.
    OSError names `path`.
    """
    try:
        place = _resolved(path)
        partial = _beside(place) if isinstance(place, str) else None
    except OSError as error:
        raise _about(path, error) from None
    draft = partial if partial is not None else _new_file(Path(tempfile.gettempdir()), path.name)
    try:
        yield draft
        if partial is None or not _replaced(partial, str(place)):
            _pour(draft, place)
    except OSError as error:
        raise _about(path, error) from None
    finally:
        draft.unlink(missing_ok=True)


def put_in_place(draft: Path, folder: Path) -> None:
    """Move a finished draft to the place of a folder and of all that was there; where that fails, the old one stays."""
    before = draft.with_name(f"{draft.name}.before")
    with suppress(FileNotFoundError):
        os.replace(folder, before)
    try:
        os.replace(draft, folder)
    except OSError:
        if before.exists():
            os.replace(before, folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def draft_beside(folder: Path) -> Iterator[Path]:
    """A hidden empty folder beside another, to be moved to its place; what is left of it in the end is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = hidden_beside(folder, secrets.token_hex(4))
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` against other processes, where the file system has locks.

    BlockingIOError where another process holds it, unless it is waited for.
    """
    lock = FileLock(path)
    try:
        with suppress(NotImplementedError):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path)) from None
    try:
        yield
    finally:
        lock.release()


def hidden_beside(path: Path, suffix: str) -> Path:
    """The name for a draft of a file or folder, beside it."""
    return path.with_name(f".{_shortened(path.name)}.{suffix}")


def keep_mode(path: Path, mode: int) -> None:
    """Give a file these permissions, where the file system has any."""
    if stat.S_IMODE(path.stat().st_mode) != stat.S_IMODE(mode):
        try:
            os.chmod(path, stat.S_IMODE(mode))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise


def _resolved(path: Path) -> str | int:
    """Where `path` leads at the end of all links: a path without them, or the number of an open descriptor."""
    place = os.path.join(os.getcwd(), path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        descriptors = re.fullmatch(r"/proc/(\d+)(?:/task/\d+)?/fd|/dev/fd", folder)
        if descriptors and name.isdecimal():
            ours = descriptors[1] is None or int(descriptors[1]) == os.getpid()
            return int(name) if ours else os.path.join(folder, name)
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            return place
        place = os.path.join(folder, os.readlink(place))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _mode(place: str) -> int | None:
    """The file's mode; None where there is no file."""
    try:
        return os.stat(place).st_mode
    except FileNotFoundError:
        return None


def _beside(place: str) -> Path | None:
    """A new file in the folder of a regular file, or one that is not there yet; None where `place` is written into.

    That is what is not regular, and a file that can be written in a folder that takes no others.
    """
    target, mode = Path(place), _mode(place)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if mode is not None and not stat.S_ISREG(mode):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial = _new_file(target.parent, target.name)
    except OSError as error:
        if mode is None or error.errno not in _NOT_BESIDE or not os.access(place, os.W_OK):
            raise
        return None
    if mode is not None:
        keep_mode(partial, mode)
    return partial


def _replaced(partial: Path, place: str) -> bool:
    """Put the finished file in its place; False where the file system can't and its content must be written there."""
    sync(partial)
    try:
        os.replace(partial, place)
    except OSError as error:
        if error.errno not in _NOT_BESIDE:
            raise
        return False
    return True


def _new_file(folder: Path, name: str) -> Path:
    """An empty file under a new name, with the permissions that the user's umask leaves."""
    path = hidden_beside(folder / name, f"{secrets.token_hex(4)}.partial")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def _shortened(name: str) -> str:
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore")


def _pour(source: Path, place: str | int) -> None:
    """Copy a file's content into the existing file at `place`."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes before
    foreign = isinstance(place, str) and place.startswith("/proc/")  # another process's descriptor, of a log perhaps
    target = open(os.dup(place), "wb") if isinstance(place, int) else open(place, "ab" if foreign else "wb")
    with target, source.open("rb") as content:
        shutil.copyfileobj(content, target)


def sync(path: Path) -> None:
    """Have a file's content on the disk, where the file system knows how."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise


def _about(path: Path, error: OSError) -> OSError:
    """The same error with the path that the user passed."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))

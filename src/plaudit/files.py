"""Finding files: all under a folder, and the one that a table names, in any Unicode normalization."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from functools import lru_cache
from pathlib import Path

from plaudit.errors import AudioError

SYSTEM_NAMES = {
    *("@eadir", "@tmp", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information"),
    *("lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
"""Lower-case names of what systems put into folders, beside all that begins with a dot."""


def files_under(folder: Path) -> list[Path]:
    """All files anywhere under a folder, sorted, without hidden and system files.

    Links are followed; a folder that is reached in several ways counts once, by its real path if that is in `folder`.
    Folders that may not be read are passed over, but AudioError says so of `folder` itself.
    """
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        place = folders.popleft() if folders else links.popleft()
        try:
            state = place.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(place) as entries:
                listed = [entry for entry in entries if not is_hidden(entry.name)]
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            if place is folder:
                what = "may not be read" if isinstance(error, PermissionError) else "is not a folder"
                raise AudioError(f"{folder} {what}; check the path") from None
            continue
        for entry in listed:
            path = place / entry.name
            if not os.path.isdir(path):
                files.append(path)
            else:
                (links if entry.is_symlink() else folders).append(path)
    return sorted(files)


def find_file(name: str, *folders: Path) -> Path | None:
    """The file that a table calls `name`, in the first of `folders` that has it; None where none has.

    Accented letters are the same whether they are one character or two (NFC, NFD): macOS spells them in its way.
    """
    for folder in folders:
        path = _spelled(folder, name)
        if path is not None:
            return path
    return None


def composed(name: str) -> str:
    """A name in NFC, for comparisons."""
    return unicodedata.normalize("NFC", name)


def path_in(folder: Path, file: str | Path) -> str:
    """A file as results in `folder` name it, so that they hold wherever they are read.

    Relative to `folder` where the file is in it or beside it, so that both can be moved together; else absolute.
    """
    place, base = Path(file).parent.resolve() / Path(file).name, folder.resolve()
    near = place.is_relative_to(base.parent)
    return Path(os.path.relpath(place, base)).as_posix() if near else str(place)


def _spelled(folder: Path, name: str) -> Path | None:
    path = folder / name
    if os.path.exists(path) or name.isascii():
        return path if os.path.exists(path) else None
    place = Path(path.anchor) if Path(name).is_absolute() else folder
    for part in Path(name).relative_to(Path(name).anchor).parts:
        if not os.path.exists(place / part):
            try:
                part = _names(place, place.stat().st_mtime_ns).get(composed(part), part)
            except OSError:
                return None
        place /= part
    return place if os.path.exists(place) else None


@lru_cache(maxsize=64)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder that has not changed since, by how they are compared."""
    return {composed(name): name for name in os.listdir(folder)}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or put there by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES

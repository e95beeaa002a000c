"""The JSON sidecar of a generated clip, with its prompt, seed and all settings; and folders of candidates.

A clip `x.wav` has the sidecar `x.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from plaudit.files import files_under
from plaudit.writing import create_file

CANDIDATES = "candidates"
"""The folder beside the clips chosen by `plaudit generate --best-of` that holds all candidates."""

_MARKER = "candidates.json"
"""A file that marks such a folder, as music may be in a folder of the same name."""


def sidecar_path(clip: Path) -> Path:
    """Where the sidecar of a clip is."""
    return clip.with_suffix(".json")


def read_sidecar(clip: Path) -> dict[str, Any]:
    """The content of a clip's sidecar; {} where there is none or it is no JSON object."""
    path = sidecar_path(clip)
    if path == clip:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def recorded_seed(clip: Path) -> int | None:
    """The seed that a clip was generated from, by its sidecar."""
    seed = read_sidecar(clip).get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def mark_candidates(folder: Path) -> None:
    """Mark `folder` as one of candidates, so that its clips do not count as output."""
    with suppress(FileExistsError):
        about = '{"about": "clips that plaudit generate --best-of chose from; not output themselves"}\n'
        create_file(folder / _MARKER, about)


def without_candidates(files: Sequence[Path], folder: Path) -> list[Path]:
    """The files, all under `folder`, that are in no folder of candidates below it."""
    marked: dict[Path, bool] = {folder: False}
    return [file for file in files if not _below_candidates(file.parent, marked)]


def candidates_note(folders: Iterable[Path]) -> str | None:
    """A line that names the folders of candidates below `folders`, whose clips are left out; None where there are none.

    A folder of candidates that is itself among `folders` is not left out.
    """
    left_out = []
    for folder in folders:
        files = files_under(folder) if os.path.isdir(folder) else []
        left_out += [file.parent for file in files if file.parent != folder and _is_marker(file)]
    if not left_out:
        return None
    shown = ", ".join(map(str, left_out[:3])) + (", ..." if len(left_out) > 3 else "")
    return f"left out the candidates of --best-of in {shown}; name that folder to include them"


def _is_marker(file: Path) -> bool:
    return file.name == _MARKER and file.parent.name == CANDIDATES


def _below_candidates(folder: Path, marked: dict[Path, bool]) -> bool:
    if folder not in marked:
        is_marked = _is_marker(folder / _MARKER) and (folder / _MARKER).is_file()
        marked[folder] = is_marked or (folder != folder.parent and _below_candidates(folder.parent, marked))
    return marked[folder]

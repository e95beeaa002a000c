"""HTML pages: templates with formatted numbers, and folders in which a page replaces an earlier one."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plaudit import __version__
from plaudit.errors import EvaluationError
from plaudit.evaluate.pages import text
from plaudit.storage import STEP, read_json, write_json
from plaudit.tables import csv_text
from plaudit.writing import draft_beside

TEMPLATES = Path(__file__).parent / "templates"

WRITTEN = ".written.json"
"""The list of the files of a page, in its folder."""


@dataclass(frozen=True)
class Theme:
    """Colours of one appearance: card behind the chart, ink, faint ink, grid, and one per stage."""

    card: str
    ink: str
    faint: str
    grid: str
    stages: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """All of them, in the order that pairs two themes."""
        return (self.card, self.ink, self.faint, self.grid, *self.stages)


LIGHT = Theme(
    "#ffffff", "#1c2430", "#5d6878", "#e4e8ee",
    ("#6b7788", "#2563b8", "#0f8a6c", "#b86e00", "#a8327f", "#5b47b5"),
)  # fmt: skip
DARK = Theme(
    "#171c24", "#e6eaf0", "#98a4b5", "#2b333f",
    ("#9aa7b8", "#6ea8f5", "#4cc9a4", "#eeb04f", "#ec85c4", "#a99cf2"),
)  # fmt: skip


def rendered(template: str, **values: Any) -> str:
    """A page from a template of this package; a name in it without a value is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(light=LIGHT, dark=DARK, version=__version__)
    formats = (text.number, text.percent, text.duration, text.memory, text.p_value, text.signed, text.span)
    names = (text.regressed_metrics, text.compared_title, text.heading, text.in_sentence)
    environment.filters.update({one.__name__: one for one in (*formats, *names)})
    return environment.get_template(template).render(**values)


def data_address(kind: str, content: bytes | str) -> str:
    """Content as a data URL."""
    data = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as CSV with a header line; "" where there are none."""
    return csv_text(list(rows[0]), rows) if rows else ""


@contextmanager
def replaced_page(folder: Path) -> Iterator[Path]:
    """A draft folder for a page and its files, which replace an earlier page in `folder` once they are complete.

    Other files in the folder stay. EvaluationError where one has the name of a file to be written, and where the folder
    has files but neither a page nor the record of a run's step.
    """
    folder = Path(os.path.realpath(folder))
    _check_page(folder)
    with draft_beside(folder) as draft:
        yield draft
        _move_page(draft, folder)


def _check_page(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in (WRITTEN, STEP)):
        raise EvaluationError(f"{folder} has files but no report of plaudit; choose another folder with -o")


def _move_page(draft: Path, folder: Path) -> None:
    """Move a draft's files into place, and remove those of an earlier page that it lacks."""
    new = sorted(path.name for path in draft.iterdir())
    old = read_json(folder / WRITTEN)["files"] if (folder / WRITTEN).exists() else []
    if foreign := [name for name in new if name not in old and os.path.lexists(folder / name)]:
        raise EvaluationError(f"{folder / foreign[0]} was not written by plaudit; move it away, then run this again")
    write_json(draft / WRITTEN, {"files": new})
    if not folder.exists():
        os.replace(draft, folder)
        return
    write_json(folder / WRITTEN, {"files": sorted({*old, *new})})
    for name in {*old, *new}:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif name not in new or (draft / name).is_dir():
            path.unlink(missing_ok=True)
    for name in (*new, WRITTEN):
        os.replace(draft / name, folder / name)

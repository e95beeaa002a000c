"""Pages for people: templates with numbers as people write them, in folders of their own."""

from __future__ import annotations

import base64
import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plaudit.errors import EvaluationError
from plaudit.evaluate.pages import text as wording
from plaudit.storage import STEP, read_json, write_json
from plaudit.writing import draft_beside

TEMPLATES = Path(__file__).parent / "templates"

WRITTEN = ".written.json"
"""The list of what was written into a folder for a page."""


def rendered(template: str, **values: Any) -> str:
    """A page from a template of this package; what it names must all be given."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        percent=wording.percent,
        duration=wording.duration,
        memory=wording.memory,
        p_value=wording.p_value,
        signed=wording.signed,
        span=wording.span,
        paid_for=wording.regressed_metrics,
    )
    return environment.get_template(template).render(**values)


def data_address(kind: str, content: bytes | str) -> str:
    """Content as an address that a page can hold itself."""
    plain = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(plain).decode()}"


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as CSV with a header line; "" where there are none."""
    if not rows:
        return ""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flatten_row(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as columns: {"difference": {"low": 1}} becomes {"difference_low": 1}."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= flatten_row(value, f"{prefix}{name}_") if isinstance(value, Mapping) else {prefix + name: value}
    return found


@contextmanager
def replaced_page(folder: Path) -> Iterator[Path]:
    """A draft to write a page and its files into, which take the place of an earlier page's once they are complete.

    Other files in the folder stay. EvaluationError where one has the name of a file to be written, and where the folder
    holds files but neither a page nor the marker of a run's step.
    """
    folder = Path(os.path.realpath(folder))
    _check_page(folder)
    with draft_beside(folder) as draft:
        yield draft
        _move_page(draft, folder)


def _check_page(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in (WRITTEN, STEP)):
        raise EvaluationError(f"{folder} holds files that are no report of plaudit's; choose another folder with -o")


def _move_page(draft: Path, folder: Path) -> None:
    """Put what was written into its place, and remove what an earlier page had more."""
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
        there = folder / name
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        elif name not in new or (draft / name).is_dir():
            there.unlink(missing_ok=True)
    for name in (*new, WRITTEN):
        os.replace(draft / name, folder / name)

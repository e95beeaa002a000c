"""Pages for people: templates with numbers as people write them, in folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plaudit.evaluate.report import wording

TEMPLATES = Path(__file__).parent / "templates"


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
        paid_for=wording.paid_for,
    )
    return environment.get_template(template).render(**values)


@contextmanager
def replaced_whole(folder: Path) -> Iterator[Path]:
    """A draft to write into that takes the place of `folder`, with all that was there, once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        draft.chmod(0o755)
        yield draft
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)

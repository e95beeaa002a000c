"""Pages for people: templates with numbers as people write them, in folders that appear whole or not at all."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
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


def flattened(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as columns: {"difference": {"low": 1}} becomes {"difference_low": 1}."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= flattened(value, f"{prefix}{name}_") if isinstance(value, Mapping) else {prefix + name: value}
    return found



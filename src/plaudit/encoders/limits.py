"""What of a text lies behind the last word that a text encoder reads, and so changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Limited(Protocol):
    """A text encoder that reads the beginning of a long text alone: the first `longest` of its `unit`."""

    name: str
    longest: int
    unit: str

    def count(self, prompt: str) -> int:
        """How many of its units a text has."""


def note_on_long(encoder: object, texts: Sequence[str], what: str = "prompts") -> str | None:
    """A line about the texts of which the encoder reads the beginning alone, or None where there are none."""
    if not isinstance(encoder, Limited):
        return None
    distinct = list(dict.fromkeys(texts))
    long = [text for text in distinct if encoder.count(text) > encoder.longest]
    if not long:
        return None
    begin = " ".join(long[0].split())[:60]
    return (
        f"only the first {encoder.longest} {encoder.unit} are read by text encoder {encoder.name!r}: the rest of "
        f"{len(long)} of {len(distinct)} {what} changes nothing; the first: {begin}..."
    )

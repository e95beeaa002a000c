"""What a file holds, as far as that can be told from its structure without decoding it."""

from __future__ import annotations

from dataclasses import dataclass, field

from plaudit.containers.splice import Piece

Part = tuple[Piece, ...]
"""A stretch of a file that decodes on its own, with corrected headers where they were wrong."""


@dataclass(frozen=True)
class Layout:
    """The streams in a file, one after the other.

    parts: how to read each; empty where the file can be read as it is. cut: the file is truncated, since it ends in the
    middle of a page, or a declared size that is no placeholder exceeds it. limit: the most samples that the streams can
    hold, where known. slack: by how many seconds a stream may decode to less than its header declares.
    """

    parts: list[Part] = field(default_factory=list)
    cut: bool = False
    limit: int | None = None
    slack: float = 0.05

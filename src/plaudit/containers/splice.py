"""Byte ranges of a file and literal bytes, read as if they were one file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

Piece = bytes | tuple[int, int]
"""Literal bytes, or a range of the file from one offset up to another."""


class Splice(io.RawIOBase):
    """The pieces of `file` in their order, readable and seekable; closing it closes the file."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._pieces = file, tuple(pieces)
        lengths = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self._pieces]
        self._ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1] if self._ends else 0}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = begin = 0
        for piece, end in zip(self._pieces, self._ends, strict=True):
            if self._place < end and filled < len(view):
                inside, wanted = self._place - begin, min(end - self._place, len(view) - filled)
                if isinstance(piece, bytes):
                    data = piece[inside : inside + wanted]
                else:
                    self._file.seek(piece[0] + inside)
                    data = self._file.read(wanted)
                view[filled : filled + len(data)] = data
                filled += len(data)
                self._place += len(data)
                if len(data) < wanted:
                    break
            begin = end
        return filled

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
